//! A sidecar whose keys come from a SPIFFE Workload API, which is another process.

use std::{fs, path::Path, process::Command};

use exeat::runtime::clock::Clock;
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::{
    governed::Sidecar,
    processes::{Fleet, Running, run, used},
};

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads where its peers are"
)]
fn python() -> String {
    std::env::var("EXEAT_PYTHON").expect("EXEAT_PYTHON names a Python with peers")
}

/// An authority of a trust domain.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![uri("spiffe://acme.example")];
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        let certificate = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    fn issue(&self, id: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.subject_alt_names.push(uri(id));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate, key)
    }

    /// Puts keys where the Workload API reads them: `svid.der` last, which is what it looks at.
    fn gives(&self, folder: &Path, id: &str) {
        let (certificate, key) = self.issue(id);
        for (name, content) in [
            ("id", id.as_bytes()),
            ("bundle.der", self.certificate.der()),
            ("key.der", key.serialized_der()),
            ("svid.der", certificate.der()),
        ] {
            fs::write(folder.join("new"), content).unwrap();
            fs::rename(folder.join("new"), folder.join(name)).unwrap();
        }
    }

    /// A connection of `id`, which trusts this authority.
    async fn connect(&self, address: &str, id: &str) -> Result<Channel, String> {
        let (certificate, key) = self.issue(id);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.certificate.pem()))
            .domain_name("localhost")
            .identity(Identity::from_pem(certificate.pem(), key.serialize_pem()));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap();
        endpoint
            .connect()
            .await
            .map_err(|error| format!("{error:?}"))
    }

    /// What `id` is told.
    async fn says(&self, address: &str, id: &str) -> String {
        let channel = match self.connect(address, id).await {
            Ok(channel) => channel,
            Err(why) => return why,
        };
        match Sidecar::ask_over(channel, "", "plain").await {
            Ok(decision) => decision.outcome().as_str_name().to_owned(),
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        }
    }

    async fn until(&self, fleet: &Fleet, id: &str, wanted: &str) {
        let mut said = String::new();
        for _ in 0..2_000 {
            said = self.says(&fleet.listen, id).await;
            if said.contains(wanted) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let log = fs::read_to_string(fleet.path("log")).unwrap();
        panic!("never {wanted}: {said}\n{log}");
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

const AGENT: &str = "spiffe://acme.example/agent/a";
const SIDECAR: &str = "spiffe://acme.example/sidecar";

/// Its certificate and whom it trusts are the Workload API's, and new ones are used as they come.
#[tokio::test]
async fn keys_come_from_a_workload_api_and_are_renewed() {
    let fleet = Fleet::new();
    let world = used(Clock::system().now().latest).replace("id: agent", &format!("id: {AGENT}"));
    let world = world.replace("[\"agent\"]", &format!("[\"{AGENT}\"]"));
    let folder = fleet.path("policy");
    fs::create_dir(&folder).unwrap();
    fs::write(Path::new(&folder).join("a.yaml"), world).unwrap();
    let keys = fleet.scratch.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let first = Authority::new();
    first.gives(&keys, SIDECAR);
    let socket = fleet.path("workload.sock");
    let api = Command::new(python())
        .arg("tests/peers/workload_api.py")
        .arg(&socket)
        .arg(&keys)
        .spawn();
    let _api = Running(api.unwrap());
    let endpoint = format!("unix://{socket}");
    let args = [
        "sidecar",
        "--bundle",
        &folder,
        "--listen",
        &fleet.listen,
        "--operations",
        &fleet.operations,
        "--unix",
        "none",
        "--workload-api",
        &endpoint,
        "--trust-domain",
        "acme.example",
    ];
    let _process = run(&args, fleet.path("log").as_ref(), &[]);
    first.until(&fleet, AGENT, "OUTCOME_ALLOW").await;
    let elsewhere = "spiffe://other.example/agent/a";
    let said = first.says(&fleet.listen, elsewhere).await;
    assert!(said.starts_with("Unauthenticated"), "{said}");
    // Another authority: who was let in by the old one is not any more.
    let second = Authority::new();
    second.gives(&keys, SIDECAR);
    second.until(&fleet, AGENT, "OUTCOME_ALLOW").await;
    let said = first.says(&fleet.listen, AGENT).await;
    assert!(!said.contains("OUTCOME_ALLOW"), "{said}");
}

/// Without one it does not start, and says what it waited for.
#[tokio::test]
async fn a_workload_api_that_is_none_is_named() {
    let fleet = Fleet::new();
    let said = |endpoint: &str, more: &[&str]| {
        let mut args = vec![
            "sidecar",
            "--bundle",
            "examples/policy",
            "--unix",
            "none",
            "--trust-domain",
            "acme.example",
            "--workload-api",
            endpoint,
        ];
        args.extend(more);
        let log = fleet.path("log");
        drop(fs::remove_file(&log));
        let mut process = run(&args, log.as_ref(), &[]);
        assert!(!process.0.wait().unwrap().success());
        fs::read_to_string(log).unwrap()
    };
    let told = said("/run/spire/agent.sock", &[]);
    assert!(
        told.contains("workload_api /run/spire/agent.sock"),
        "{told}"
    );
    let told = said(
        "unix:///run/spire/agent.sock",
        &["--tls-certificate", "a", "--tls-key", "b"],
    );
    assert!(told.contains("`workload_api` is in place of"), "{told}");
}
