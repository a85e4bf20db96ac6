//! The file that says how people sign in.

use serde::Deserialize;

/// How people sign in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// How long they stay signed in.
    #[serde(default = "a_day_of_work")]
    pub session_lasts: String,
    /// How long a step-up counts from when it was done.
    #[serde(default = "a_quarter")]
    pub step_up_lasts: String,
    /// Whether accounts with a password of ours may be used.
    #[serde(default = "yes")]
    pub passwords: bool,
    /// With whom.
    #[serde(default)]
    pub issuers: Vec<SignInIssuer>,
}

impl Default for SignIn {
    fn default() -> Self {
        Self {
            session_lasts: a_day_of_work(),
            step_up_lasts: a_quarter(),
            passwords: true,
            issuers: Vec::new(),
        }
    }
}

/// A provider of identities, over `OpenID` Connect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignInIssuer {
    /// What it is called here.
    pub name: String,
    /// Its URL, as its tokens say it; its discovery document is below it.
    pub issuer: String,
    /// Who we are there.
    pub client_id: String,
    /// A file with our secret there, of a client that has one.
    pub client_secret_file: Option<String>,
    /// The path of the address on this machine that browsers come back to, as it is registered there.
    #[serde(default = "callback")]
    pub redirect_path: String,
    /// What is asked for beside `openid`.
    #[serde(default = "profile")]
    pub scopes: Vec<String>,
    /// The claim with somebody's name: they are `user:NAME` here.
    #[serde(default = "preferred_username")]
    pub name_claim: String,
    /// Before the name, so that nobody is taken for somebody of another issuer; with several
    /// issuers none may begin as another one does.
    #[serde(default)]
    pub prefix: String,
    /// The claim with somebody's groups.
    #[serde(default = "groups")]
    pub groups_claim: String,
    /// What members of a group may do; the first that fits.
    #[serde(default)]
    pub roles: Vec<GroupRole>,
    /// What everybody else may do; left out, they are not let in.
    pub role: Option<String>,
    /// What counts as a step-up.
    #[serde(default)]
    pub step_up: StepUp,
    /// Addresses within the machine or the network where it may be, such as `10.1.0.0/16`.
    #[serde(default)]
    pub allow: Vec<String>,
    /// A file with certificate authorities that are believed beside the system's.
    pub ca: Option<String>,
}

/// What members of a group may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRole {
    /// The group, as the claim says it.
    pub group: String,
    /// `admin`, `author`, `approver` or `viewer`.
    pub role: String,
}

/// What counts as a step-up: any of these.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    /// Values of the claim `acr`; asked for in this order.
    #[serde(default)]
    pub acr: Vec<String>,
    /// Values in the claim `amr`, such as `mfa` or `hwk`.
    #[serde(default)]
    pub amr: Vec<String>,
}

fn a_day_of_work() -> String {
    "8h".into()
}

fn a_quarter() -> String {
    "15m".into()
}

fn yes() -> bool {
    true
}

fn callback() -> String {
    "/callback".into()
}

fn profile() -> Vec<String> {
    vec!["profile".into()]
}

fn preferred_username() -> String {
    "preferred_username".into()
}

fn groups() -> String {
    "groups".into()
}
