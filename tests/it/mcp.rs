//! `exeat mcp` with servers and clients that say what they should not. What the official SDK says is
//! among the tests with real peers.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::ports::free_port;

const EXE: &str = env!("CARGO_BIN_EXE_exeat");

/// A server that notes what it hears in `heard`, and answers each line with `says`.
fn wrapped(scratch: &Path, says: &str) -> Command {
    let script =
        format!("while read -r line; do echo \"$line\" >> heard; cat <<'E'\n{says}\nE\ndone");
    let mut command = Command::new(EXE);
    command
        .current_dir(scratch)
        .args(["mcp", "wrap", "--server", "mcp://crm", "--socket"])
        .arg(scratch.join("nobody.sock"))
        .args(["--", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a client hears that says `lines` and nothing more.
fn hears(mut command: Command, lines: &[&str]) -> (String, String) {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in lines {
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(done.stdout), text(done.stderr))
}

#[test]
fn what_a_server_says_beside_the_protocol_goes_no_further() {
    let scratch = tempfile::tempdir().unwrap();
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"n":1.50}}"#;
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"n":123456789012345678901234567890}}"#;
    let says = [
        "a line of a log",
        r#"[{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"x"}]}}]"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{"tools":[]}}"#,
        r#"{"jsonrpc":"2.0","id":9,"result":{"tools":[{"name":"x"}]}}"#,
        notice,
        answer,
        // Said twice: nobody waits for it any more.
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"x"}]}}"#,
    ];
    let command = wrapped(scratch.path(), &says.join("\n"));
    let asks = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let (heard, told) = hears(command, &[asks]);
    assert_eq!(heard, format!("{notice}\n{answer}\n"), "{told}");
    let at_the_server = std::fs::read_to_string(scratch.path().join("heard")).unwrap();
    assert_eq!(at_the_server, format!("{asks}\n"));
}

/// Fail closed: with nobody to decide, and where nobody can read it in one way alone, the server hears
/// nothing of a call.
#[test]
fn what_is_not_decided_is_not_called() {
    let scratch = tempfile::tempdir().unwrap();
    let tools = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"wipe"}]}}"#;
    let command = wrapped(scratch.path(), tools);
    let (heard, told) = hears(
        command,
        &[
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            r#"[{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"wipe"}}]"#,
            r#"{"jsonrpc":"2.0","id":3,"method":"ping","method":"tools/call","params":{"name":"wipe"}}"#,
            r#"{"jsonrpc":"2.0","id":4,"method":"Tools/Call","params":{"name":"wipe"}}"#,
            r#"{"jsonrpc":"2.0","id":5,"method":"resources/read","params":{"uri":"file:///a"}}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"wipe"}}"#,
        ],
    );
    let answers: Vec<serde_json::Value> = heard
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut codes: Vec<_> = answers
        .iter()
        .map(|answer| {
            (
                answer["id"].clone(),
                answer["error"]["code"].as_i64().unwrap(),
            )
        })
        .map(|(id, code)| (id.as_i64().unwrap_or(0), code))
        .collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [
            (0, -32_700),
            (0, -32_600),
            (1, -32_603),
            (4, -32_601),
            (5, -32_603)
        ],
        "{heard}{told}"
    );
    let at_the_server = std::fs::read_to_string(scratch.path().join("heard")).unwrap();
    // The list it was asked for, and nothing that looks for more than that.
    assert!(
        at_the_server
            .lines()
            .all(|line| line.contains("tools/list")),
        "{at_the_server}"
    );
}

#[test]
fn what_cannot_be_is_said_before_anything_begins() {
    let scratch = tempfile::tempdir().unwrap();
    let proxy = ["mcp", "proxy", "--server", "mcp://crm", "--upstream"];
    for (args, code, said) in [
        (vec!["mcp", "wrap", "--", "true"], 2, "--server"),
        (vec!["mcp", "wrap", "--server", "mcp://crm"], 2, "CMD"),
        (
            vec!["mcp", "wrap", "--server", "mcp://crm/", "--", "true"],
            2,
            "name the server",
        ),
        (
            vec!["mcp", "wrap", "--server", "mcp://crm", "--", "./nothing"],
            2,
            "cannot be started",
        ),
        (
            vec![
                "mcp",
                "wrap",
                "--server",
                "mcp://crm",
                "--approval-url",
                "https://x",
                "--",
                "true",
            ],
            2,
            "{decision}",
        ),
        (
            vec!["mcp", "wrap", "--server", "mcp://crm", "--", "false"],
            1,
            "the server ended",
        ),
        ([&proxy[..], &["ftp://x"]].concat(), 2, "--upstream"),
        (
            [&proxy[..], &["http://x", "--listen", "0.0.0.0:0"]].concat(),
            2,
            "in the clear",
        ),
        (
            [&proxy[..], &["http://x", "--listen", "here"]].concat(),
            2,
            "no address",
        ),
        (
            [&proxy[..], &["https://x", "--ca", "nothing.pem"]].concat(),
            7,
            "nothing.pem",
        ),
        (
            vec!["mcp", "pin", "--server", "mcp://crm", "--", "true"],
            6,
            "mcp://crm",
        ),
    ] {
        let done = Command::new(EXE)
            .args(&args)
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(said), "{args:?}: {told}");
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What `port` answers to a request: its status, and the rest.
fn asked(port: u16, head: &str, body: &str) -> (u16, String) {
    let mut tries = (0..12_000).map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let mut stream = tries.find_map(|stream| stream).expect("somebody listens");
    let length = body.len();
    let request =
        format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap(), text)
}

#[test]
fn over_http_it_is_said_whose_fault_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let (port, nobody) = (free_port(), free_port());
    let child = Command::new(EXE)
        .args(["mcp", "proxy", "--server", "mcp://crm", "--socket"])
        .arg(scratch.path().join("nobody.sock"))
        .args(["--upstream", &format!("http://127.0.0.1:{nobody}/mcp")])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .stderr(Stdio::null())
        .spawn();
    let _running = Running(child.unwrap());
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"wipe"}}"#;
    for (head, body, status, said) in [
        (
            "POST /mcp HTTP/1.1\r\nOrigin: https://evil.example",
            ping,
            403,
            "another site",
        ),
        (
            "POST /mcp HTTP/1.1\r\nOrigin: null",
            ping,
            403,
            "another site",
        ),
        ("PUT /mcp HTTP/1.1", ping, 405, "POST, GET and DELETE"),
        ("POST /elsewhere HTTP/1.1", ping, 404, ""),
        ("POST /mcp HTTP/1.1", "[]", 400, "-32600"),
        ("POST /mcp HTTP/1.1", "{", 400, "-32700"),
        (
            "POST /mcp HTTP/1.1\r\nMcp-Method: ping",
            call,
            400,
            "-32020",
        ),
        (
            "POST /mcp HTTP/1.1\r\nMcp-Name: search",
            call,
            400,
            "-32020",
        ),
        (
            "POST /mcp HTTP/1.1\r\nMcp-Name: wipe\r\nMcp-Name: search",
            call,
            400,
            "is there twice",
        ),
        // Our own failure is an answer to the call, and the server's is a gateway's.
        ("POST /mcp HTTP/1.1", call, 200, "-32603"),
        (
            "POST /mcp HTTP/1.1\r\nOrigin: http://localhost:3000",
            ping,
            502,
            "does not answer",
        ),
    ] {
        let (got, text) = asked(port, head, body);
        assert_eq!(got, status, "{head}: {text}");
        assert!(text.contains(said), "{head}: {text}");
    }
}
