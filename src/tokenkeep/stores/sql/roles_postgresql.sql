-- Roles for the tables of tokenkeep. Run it by `psql -f` as a superuser, after `tokenkeep db init`; it may be repeated,
-- and must be after each `tokenkeep db upgrade`. Nobody can log in as a role: make users, and grant them one role each:
--     CREATE USER app PASSWORD '…' IN ROLE {{writer}};
-- Whoever upgrades does it as the owner: postgresql://admin@host/database?options=-crole%3D{{owner}}

BEGIN;

DO $roles$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[{{'owner'}}, {{'writer'}}, {{'verifier'}}, {{'auditor'}}] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
END
$roles$;

-- The owner changes tables. Nobody else has any right that is not named below.
GRANT USAGE, CREATE ON SCHEMA {{schema}} TO {{owner}};
ALTER TABLE {{meta}} OWNER TO {{owner}};
ALTER TABLE {{key}} OWNER TO {{owner}};
ALTER TABLE {{token}} OWNER TO {{owner}};
ALTER TABLE {{lease}} OWNER TO {{owner}};
ALTER TABLE {{step}} OWNER TO {{owner}};
ALTER TABLE {{audit}} OWNER TO {{owner}};
ALTER TABLE {{audit_head}} OWNER TO {{owner}};
ALTER TABLE {{issued}} OWNER TO {{owner}};
DO $partitions$
DECLARE
    part pg_catalog.regclass;
BEGIN
    FOR part IN SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = '{{issued}}'::pg_catalog.regclass LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s OWNER TO %I', part, {{'owner'}});
    END LOOP;
END
$partitions$;
ALTER TABLE IF EXISTS {{revision}} OWNER TO {{owner}};
REVOKE ALL ON {{meta}}, {{key}}, {{token}}, {{lease}}, {{step}}, {{audit}}, {{audit_head}}, {{issued}}
    FROM PUBLIC, {{writer}}, {{verifier}}, {{auditor}};

-- The writer is the application: everything that a vault and an issuer do. It adds to the trail and reads it, but
-- cannot change it or delete from it: `tokenkeep purge --audit-before` is for the owner.
GRANT USAGE ON SCHEMA {{schema}} TO {{writer}};
GRANT SELECT ON {{meta}} TO {{writer}};
GRANT SELECT, INSERT ON {{key}} TO {{writer}};
GRANT SELECT, INSERT, UPDATE, DELETE ON {{token}}, {{issued}} TO {{writer}};
GRANT SELECT, INSERT, UPDATE ON {{lease}}, {{step}}, {{audit_head}} TO {{writer}};
GRANT DELETE ON {{lease}} TO {{writer}};
GRANT SELECT, INSERT ON {{audit}} TO {{writer}};
GRANT USAGE ON SEQUENCE {{audit_sequence}} TO {{writer}}, {{auditor}};

-- The verifier asks whether a token that it was shown is good, and reads no table.
GRANT USAGE ON SCHEMA {{schema}} TO {{verifier}};
CREATE OR REPLACE FUNCTION {{verify}}(token_id bytea, token_digest bytea)
    RETURNS TABLE (namespace text, user_id text, name text, scopes text, created_at timestamptz,
                   expires_at timestamptz, client text, metadata jsonb, last_used_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $verify$
        SELECT t.namespace, t.user_id, t.name, t.scopes, t.created_at,
               t.expires_at, t.client, t.metadata, t.last_used_at
        FROM {{issued}} AS t
        WHERE t.id = token_id AND t.digest = token_digest AND t.access_lifetime IS NULL
          AND t.revoked_at IS NULL AND t.expires_at > clock_timestamp()
    $verify$;
ALTER FUNCTION {{verify}}(bytea, bytea) OWNER TO {{owner}};
REVOKE ALL ON FUNCTION {{verify}}(bytea, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {{verify}}(bytea, bytea) TO {{verifier}};

-- The auditor adds to the trail, reads it, and sees the heads of its chains. What he adds is in no chain.
GRANT USAGE ON SCHEMA {{schema}} TO {{auditor}};
GRANT SELECT, INSERT ON {{audit}} TO {{auditor}};
GRANT SELECT ON {{audit_head}} TO {{auditor}};

COMMIT;
