// No token is in reach of this script: the cookie is HttpOnly. What devices say of themselves is set as text only.
const at = (id) => document.getElementById(id);

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  const said = answer.status === 204 ? null : await answer.json();
  at("said").textContent = answer.ok ? "" : typeof said.detail === "string" ? said.detail : "Please check what you typed.";
  return answer.ok ? said ?? true : null;
}

function row(session) {
  const line = document.createElement("tr");
  for (const text of [session.client, session.address, new Date(session.created_at).toLocaleString()]) {
    line.insertCell().textContent = text;
  }
  const last = line.insertCell();
  if (session.current) {
    last.textContent = "this one";
  } else {
    const button = document.createElement("button");
    button.textContent = "End";
    button.onclick = async () => { await ask("DELETE", `/sessions/${session.id}`); await show(); };
    last.append(button);
  }
  return line;
}

async function show() {
  const me = await fetch("/me");
  at("login").hidden = me.ok;
  at("account").hidden = !me.ok;
  if (!me.ok) return;
  at("who").textContent = (await me.json()).name;
  at("sessions").replaceChildren(...(await ask("GET", "/sessions") ?? []).map(row));
}

at("login").onsubmit = async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const login = { name: form.get("name"), password: form.get("password") };
  if (event.submitter.value === "register" && !await ask("POST", "/register", login)) return;
  if (await ask("POST", "/login", login)) await show();
};
at("others").onclick = async () => { await ask("DELETE", "/sessions/others"); await show(); };
at("logout").onclick = async () => { await ask("POST", "/logout"); await show(); };
show();
