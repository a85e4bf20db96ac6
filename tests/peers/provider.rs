//! A real OpenID Connect provider, a browser, and the built binary: people sign in from outside.
//! A provider that is missing fails; nothing is skipped.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use crate::support::ports::free_address;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn variable(name: &str) -> Option<String> {
    let mut all = std::env::vars();
    all.find(|(known, _)| known == name).map(|(_, value)| value)
}

/// The provider's URL, as it prints it.
fn provider() -> (Running, String) {
    let folder = variable("EXEAT_NPM").expect("EXEAT_NPM: where oidc-provider is installed");
    let mut node = Command::new("node")
        .args(["tests/peers/provider.mjs", &folder])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("node");
    let mut line = String::new();
    let mut said = BufReader::new(node.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("http://127.0.0.1:"), "no provider: {line}");
    (Running(node), line.trim().to_owned())
}

struct Outside {
    scratch: tempfile::TempDir,
    address: String,
}

impl Outside {
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn exeat(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EXEAT_")) {
            command.env_remove(name);
        }
        command
            .args(args)
            .env("XDG_STATE_HOME", self.path("state"))
            .env("EXEAT_REGISTRY", &self.address)
            .env("EXEAT_REGISTRY_CA", self.path("data/tls/ca.pem"))
            .stdin(Stdio::null());
        command
    }

    /// What a command says and its exit code.
    fn run(&self, args: &[&str]) -> (i32, String) {
        told(&self.exeat(args).output().unwrap())
    }

    /// The same, with something on standard input.
    fn given(&self, args: &[&str], input: &str) -> (i32, String) {
        let file = self.path("input");
        fs::write(&file, input).unwrap();
        let mut command = self.exeat(args);
        command.stdin(fs::File::open(file).unwrap());
        told(&command.output().unwrap())
    }

    fn registry(&self) -> Running {
        let config = self.path("registry.yaml").display().to_string();
        let mut child = self
            .exeat(&[
                "registry",
                "--config",
                &config,
                "--listen",
                &self.address,
                "--operations",
                "127.0.0.1:0",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it did not start");
        }
        // Whatever more it says is read, and nobody waits for it.
        std::thread::spawn(move || drop(said.read_to_end(&mut Vec::new())));
        Running(child)
    }

    /// Signs in as `who` with a browser.
    fn login(&self, args: &[&str], who: &[&str]) -> (i32, String) {
        let mut all = vec!["login", "--no-browser"];
        all.extend(args);
        let mut child = self
            .exeat(&all)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        said.read_line(&mut address).unwrap();
        let page = Command::new(variable("EXEAT_PYTHON").unwrap_or_else(|| "python3".into()))
            .args(["tests/peers/browser.py", address.trim()])
            .args(who)
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&page.stdout).into_owned();
        assert!(
            shown.contains("Go back to the terminal"),
            "{shown}{}",
            String::from_utf8_lossy(&page.stderr)
        );
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        let (code, errors) = told(&output);
        (code, rest + &errors)
    }
}

fn told(output: &Output) -> (i32, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap(), said)
}

fn settings(folder: &Path, issuer: &str) {
    let data = folder.join("data").display().to_string();
    let sign_in = folder.join("sign_in.yaml");
    fs::write(folder.join("secret"), "a secret: with a colon & more\n").unwrap();
    fs::write(
        &sign_in,
        format!(
            "issuers:\n\
             - name: corp\n  issuer: {issuer}\n  client_id: exeat\n  prefix: corp-\n  allow: [127.0.0.1]\n\
             \x20 roles: [{{group: security, role: approver}}, {{group: staff, role: viewer}}]\n\
             \x20 step_up: {{acr: [gold]}}\n\
             - name: other\n  issuer: {issuer}\n  client_id: exeat-with-a-secret\n  allow: [127.0.0.1]\n\
             \x20 client_secret_file: secret\n  prefix: other-\n  name_claim: sub\n  role: viewer\n"
        ),
    )
    .unwrap();
    fs::write(
        folder.join("registry.yaml"),
        format!("data: {data}\nsign_in: {}\n", sign_in.display()),
    )
    .unwrap();
}

/// The main path and its ends, over TLS and from outside, with a provider that nobody here wrote.
#[test]
fn people_sign_in_with_a_real_provider() {
    let (_provider, issuer) = provider();
    let outside = Outside {
        scratch: tempfile::tempdir().unwrap(),
        address: free_address(),
    };
    settings(outside.scratch.path(), &issuer);
    let data = outside.path("data").display().to_string();
    let init = ["registry", "init", "--data", &data, "--user", "dana"];
    let (code, said) = outside.given(&init, "short\n");
    assert_eq!(code, 7, "{said}");
    assert!(
        said.contains("shorter than 12") && !outside.path("data").try_exists().unwrap(),
        "{said}"
    );
    let (code, said) = outside.given(&init, "correct horse battery\n");
    assert!(
        code == 0 && said.contains("exeat login --user dana"),
        "{said}"
    );
    let registry = outside.registry();
    // A newcomer, with a password.
    let (code, said) = outside.run(&["whoami"]);
    assert!(code == 2 && said.contains("exeat login"), "{said}");
    let (code, said) = outside.given(&["login", "--user", "dana"], "correct horse battery\n");
    assert!(code == 0 && said.contains("user:dana (admin)"), "{said}");
    let (code, said) = outside.given(&["login", "--user", "dana"], "another password\n");
    assert!(
        code == 1 && said.contains("the name or the password is wrong"),
        "{said}"
    );
    let (code, said) = outside.run(&["login"]);
    assert!(code == 2 && said.contains("corp, other"), "{said}");
    // A public client; the provider says the name and the groups only when asked.
    let corp = ["--issuer", "corp"];
    let (code, said) = outside.login(&corp, &["bob"]);
    assert!(
        code == 0 && said.contains("user:corp-bob (approver)"),
        "{said}"
    );
    let saved = outside.path("state/exeat/sessions");
    let file = fs::read_dir(&saved).unwrap().next().unwrap().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (_, said) = outside.run(&["whoami"]);
    assert!(
        said.contains("user:corp-bob (approver)") && said.contains("stepped up  no"),
        "{said}"
    );
    let (code, said) = outside.run(&["account", "list"]);
    assert!(code == 1 && said.contains("needs role admin"), "{said}");
    // A client with a secret, and a name of its own.
    let (code, said) = outside.login(&["--issuer", "other"], &["carol"]);
    assert!(
        code == 0 && said.contains("user:other-id-carol (viewer)"),
        "{said}"
    );
    // A step-up that was asked for and not done; and one that was.
    let step_up = ["--issuer", "corp", "--step-up"];
    let (code, said) = outside.login(&step_up, &["bob"]);
    assert!(code == 3 && said.contains("acr silver"), "{said}");
    let (code, said) = outside.login(&step_up, &["bob", "strong"]);
    assert!(code == 0 && said.contains("stepped up until"), "{said}");
    // Nobody's cookie is taken for a second look: the provider asks anew.
    let cookies = outside.path("cookies").display().to_string();
    let (code, _) = outside.login(&corp, &["bob", &cookies]);
    assert_eq!(code, 0);
    let (code, said) = outside.login(&step_up, &["bob", "strong", &cookies]);
    assert!(code == 0 && said.contains("stepped up until"), "{said}");
    // Who is in no group, and who is not let in there.
    let (code, said) = outside.login(&corp, &["eve"]);
    assert!(
        code == 1 && said.contains("`user:corp-eve` is in no group"),
        "{said}"
    );
    let (code, said) = outside.login(&corp, &["nobody"]);
    assert!(
        code == 1 && said.contains("access_denied: not today"),
        "{said}"
    );
    // A session outlives the registry's end, and not its own.
    drop(registry);
    let _registry = outside.registry();
    let (_, said) = outside.run(&["whoami"]);
    assert!(said.contains("user:corp-bob"), "{said}");
    let file = fs::read_to_string(file.path()).unwrap();
    let (code, said) = outside.run(&["logout"]);
    assert!(code == 0 && said.contains("signed out"), "{said}");
    let (code, said) = outside.run(&["whoami", "--token", &file]);
    assert!(code == 1 && said.contains("session is over"), "{said}");
}
