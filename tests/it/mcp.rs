//! `exeat mcp` with servers and clients that say what they should not. What the official SDK says is
//! among the tests with real peers.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
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
    assert!(
        !scratch.path().join("heard").try_exists().unwrap(),
        "the server heard of it"
    );
}

/// Two readers of one message: what some take for the end of a line stands in none.
#[test]
fn a_line_is_a_line_for_every_reader() {
    let scratch = tempfile::tempdir().unwrap();
    let said = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"R"}}"#;
    let hidden = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"wipe"}}"#;
    let twice = said.replace("\"R\"", &format!("\r{hidden}\r"));
    let within = said.replace('R', "a\u{2028}b").replace(":1,", ":3,");
    let command = wrapped(scratch.path(), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    hears(command, &[&twice, &within, said]);
    let at_the_server = std::fs::read_to_string(scratch.path().join("heard")).unwrap();
    assert!(
        !at_the_server.contains(['\r', '\u{2028}']),
        "{at_the_server}"
    );
    assert!(at_the_server.contains("a\\u2028b"), "{at_the_server}");
    // An id that waits for its answer is nobody else's.
    assert_eq!(at_the_server.lines().count(), 2, "{at_the_server}");
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
    let mut head = format!(
        "{head}\r\nConnection: close\r\nContent-Length: {}",
        body.len()
    );
    for (name, usual) in [("Host", "localhost"), ("Content-Type", "application/json")] {
        if !head.contains(&format!("\r\n{name}:")) {
            head += &format!("\r\n{name}: {usual}");
        }
    }
    stream
        .write_all(format!("{head}\r\n\r\n{body}").as_bytes())
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap(), text)
}

fn proxied(scratch: &Path, upstream: u16) -> (u16, Running) {
    let port = free_port();
    let child = Command::new(EXE)
        .args(["mcp", "proxy", "--server", "mcp://crm", "--socket"])
        .arg(scratch.join("nobody.sock"))
        .args(["--upstream", &format!("http://127.0.0.1:{upstream}/mcp")])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .stderr(Stdio::null())
        .spawn();
    (port, Running(child.unwrap()))
}

/// Answers the request with the id N as the Nth of `answers`, for ever.
fn canned(answers: &'static [&'static str]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut said = String::new();
            while !said.contains("\"id\":") || !said.ends_with('}') {
                let mut bytes = [0; 4_096];
                let read = stream.read(&mut bytes).unwrap();
                said += std::str::from_utf8(&bytes[..read]).unwrap();
            }
            let id = said.rsplit("\"id\":").next().unwrap();
            let id: usize = id.split(',').next().unwrap().parse().unwrap();
            let (head, body) = answers[id].split_once("\n\n").unwrap();
            let head = head.replace('\n', "\r\n");
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    port
}

/// Whatever a server calls what it says, nothing of a list comes through that was not looked at.
#[test]
fn what_a_server_answers_over_http_is_looked_at() {
    const ANSWERS: &[&str] = &[
        "200 OK\nContent-Type: application/json\n\n{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"n\":1.50}}",
        "200 OK\nContent-Type: text/html\n\n{\"id\":1,\"result\":{\"tools\":[{\"name\":\"x\"}]}}",
        "200 OK\nContent-Type: text/event-streamx\n\ndata: {\"id\":2,\"result\":{\"tools\":[{\"name\":\"x\"}]}}\n\n",
        "200 OK\nContent-Type: text/html\nContent-Type: application/json\n\n{\"id\":3,\"result\":{\"tools\":[]}}",
        "307 Temporary Redirect\nLocation: http://127.0.0.1:1/mcp\n\n",
        "200 OK\nContent-Type: application/json\nContent-Encoding: gzip\n\nx",
        "200 OK\nContent-Type: application/json\n\n{\"id\":6,\"result\":{\"tools\":[{\"name\":\"x\"}]}}",
        "200 OK\nContent-Type: application/json\n\n{\"id\":7,\"method\":null,\"result\":{\"tools\":[{\"name\":\"x\"}]}}",
        "200 OK\nContent-Type: application/json\n\n{\"id\":8,\"result\":{\"Tools\":[{\"name\":\"x\"}]}}",
        "200 OK\nContent-Type: text/event-stream\n\n\u{feff}data: {\"id\":9,\"result\":{\"tools\":[{\"name\":\"x\"}]}}\n\n: \u{2028}data: {\"id\":9,\"result\":{\"tools\":[{\"name\":\"x\"}]}}\n\nid: 4\ndata: {\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}\n\n",
        "404 Not Found\nContent-Type: text/plain\n\nno such session",
        "202 Accepted\n\n",
    ];
    let scratch = tempfile::tempdir().unwrap();
    let (port, _running) = proxied(scratch.path(), canned(ANSWERS));
    for (id, status, said) in [
        (0, 200, "\"n\":1.50"),
        (1, 502, "neither JSON nor events"),
        (2, 502, "neither JSON nor events"),
        (3, 502, "neither JSON nor events"),
        (4, 502, "--upstream"),
        (5, 502, "packs its answer"),
        (6, 200, "was not asked for"),
        (7, 502, "no text"),
        (8, 502, "read as one of the protocol"),
        (
            9,
            200,
            "id: 4\ndata: {\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}\n\n",
        ),
        (10, 404, "the server says: no such session"),
        (11, 202, ""),
    ] {
        let ping = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        let (got, text) = asked(port, "POST /mcp HTTP/1.1", &ping);
        assert_eq!(got, status, "{id}: {text}");
        assert!(text.contains(said), "{id}: {text}");
        assert!(!text.contains(r#"{"name":"x"}"#), "{id}: {text}");
    }
}

#[test]
fn over_http_it_is_said_whose_fault_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let (port, _running) = proxied(scratch.path(), free_port());
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
            "POST /mcp HTTP/1.1\r\nHost: evil.example",
            ping,
            403,
            "another site",
        ),
        (
            "POST /mcp HTTP/1.1\r\nContent-Type: text/plain",
            ping,
            415,
            "application/json",
        ),
        (
            "POST /mcp HTTP/1.1\r\nContent-Type: application/json; charset=utf-7",
            ping,
            415,
            "UTF-8",
        ),
        (
            "POST /mcp HTTP/1.1\r\nContent-Encoding: gzip",
            ping,
            415,
            "not packed",
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
