-- Roles for the tables of tokenkeep. Run it by `mariadb DATABASE < FILE` as an administrator, after `tokenkeep db init`;
-- it may be repeated, and must be after each `tokenkeep db upgrade`. Make users, and grant them one role each:
--     CREATE USER app@'10.0.0.%' IDENTIFIED BY '…'; GRANT {{writer}} TO app@'10.0.0.%';
--     SET DEFAULT ROLE {{writer}} FOR app@'10.0.0.%';

CREATE ROLE IF NOT EXISTS {{owner}}, {{writer}}, {{verifier}}, {{auditor}};

-- The owner changes tables. MariaDB knows no owner of a table, so it is whoever has these rights.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, CREATE ROUTINE, ALTER ROUTINE, EXECUTE
    ON {{everything}} TO {{owner}};

-- The writer is the application: everything that a vault and an issuer do. It adds to the trail and reads it, but
-- cannot change it or delete from it: `tokenkeep purge --audit-before` is for the owner.
GRANT SELECT ON {{meta}} TO {{writer}};
GRANT SELECT, INSERT ON {{key}} TO {{writer}};
GRANT SELECT, INSERT, UPDATE, DELETE ON {{token}} TO {{writer}};
GRANT SELECT, INSERT, UPDATE, DELETE ON {{issued}} TO {{writer}};
GRANT SELECT, INSERT, UPDATE, DELETE ON {{lease}} TO {{writer}};
GRANT SELECT, INSERT, UPDATE ON {{step}} TO {{writer}};
GRANT SELECT, INSERT ON {{audit}} TO {{writer}};
GRANT SELECT, INSERT, UPDATE ON {{audit_head}} TO {{writer}};

-- The verifier asks whether a token that it was shown is good, and reads no table.
CREATE OR REPLACE DEFINER = {{owner}} PROCEDURE {{verify}}(IN token_id VARBINARY(16), IN token_digest VARBINARY(32))
    READS SQL DATA SQL SECURITY DEFINER
    SELECT t.namespace, t.user_id, t.name, t.scopes, t.created_at,
           t.expires_at, t.client, t.metadata, t.last_used_at
    FROM {{issued}} AS t
    WHERE t.id = token_id AND t.digest = token_digest AND t.access_lifetime IS NULL
      AND t.revoked_at IS NULL AND t.expires_at > UTC_TIMESTAMP(6);
GRANT EXECUTE ON PROCEDURE {{verify}} TO {{verifier}};

-- The auditor adds to the trail, reads it, and sees the heads of its chains. What he adds is in no chain.
GRANT SELECT, INSERT ON {{audit}} TO {{auditor}};
GRANT SELECT ON {{audit_head}} TO {{auditor}};
