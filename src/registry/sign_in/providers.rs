//! With whom people sign in, as the settings say, and who a token says they are.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value as Json;

use crate::{
    config::{SignIn, SignInIssuer, Source},
    domain::{Principal, Span, Timestamp},
    registry::{
        issuers::Issuer,
        notifications::{allowed, named},
        role::Role,
    },
    runtime::http::{Caller, callable},
    wire::jwt::Claims,
};

/// Longest that somebody stays signed in.
const LONGEST: Span = Span::from_days(30);
/// Roles of people.
const ROLES: [Role; 4] = [Role::Admin, Role::Author, Role::Approver, Role::Viewer];

/// The role of a person that is called so.
///
/// # Errors
///
/// What is none.
pub(in crate::registry) fn role_of_person(text: &str) -> Result<Role, String> {
    let known = ROLES.into_iter().find(|role| role.name() == text);
    known.ok_or_else(|| {
        let names = ROLES.map(Role::name).join(", ");
        format!("`{text}` is no role of a person; use one of {names}")
    })
}

/// How people sign in.
#[derive(Debug)]
pub(in crate::registry) struct Providers {
    /// How long they stay signed in.
    pub session_lasts: Span,
    /// How long a step-up counts.
    pub step_up_lasts: Span,
    /// Whether with a password.
    pub passwords: bool,
    /// With whom.
    pub all: Vec<Provider>,
}

/// One with whom people sign in.
#[derive(Debug)]
pub(in crate::registry) struct Provider {
    /// What it is called here.
    pub name: Box<str>,
    /// Its tokens, and where it does what.
    pub issuer: Issuer,
    /// Who we are there.
    pub client: Box<str>,
    /// Our secret there, if we have one.
    pub secret: Option<Box<str>>,
    /// The path that browsers come back to.
    pub redirect_path: Box<str>,
    /// What is asked for.
    pub scope: Box<str>,
    /// The values of `acr` that would do for a step-up.
    pub acr: Box<str>,
    amr: Vec<String>,
    name_claim: Box<str>,
    prefix: Box<str>,
    groups_claim: Box<str>,
    roles: Vec<(Box<str>, Role)>,
    role: Option<Role>,
}

/// Who a token says has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Arrival {
    /// Who they are for the issuer, for good.
    pub subject: Box<str>,
    /// Who they are here.
    pub identity: Box<str>,
    /// What they may do.
    pub role: Role,
    /// How they signed in.
    pub assurance: Box<str>,
    /// When they did what counts as a step-up.
    pub stepped_up: Option<Timestamp>,
}

impl Providers {
    /// Reads the file that says so; as it is without one.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, a line each, with its place.
    pub(in crate::registry) fn read(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else {
            let unset = SignIn::default();
            return Ok(Self {
                session_lasts: span(&unset.session_lasts)?,
                step_up_lasts: span(&unset.step_up_lasts)?,
                passwords: unset.passwords,
                all: Vec::new(),
            });
        };
        let (source, file) = Source::read::<SignIn>(path)?;
        let mut wrong = Vec::new();
        let mut lasts = |field: &str, text: &str| {
            span(text).unwrap_or_else(|why| {
                wrong.push(source.wrong(field, &why));
                Span::ZERO
            })
        };
        let session_lasts = lasts("session_lasts", &file.session_lasts);
        let step_up_lasts = lasts("step_up_lasts", &file.step_up_lasts);
        let (mut names, mut prefixes, mut all) = (BTreeSet::new(), Vec::<&str>::new(), Vec::new());
        for (at, one) in file.issuers.iter().enumerate() {
            let field = |name: &str| format!("issuers[{at}].{name}");
            if !names.insert(&one.name) {
                wrong.push(source.wrong(&field("name"), "is another issuer's already"));
            }
            // `ext-carol` of one is not `carol` of another whose prefix is `ext-`.
            let alike =
                |other: &&str| other.starts_with(&*one.prefix) || one.prefix.starts_with(*other);
            if prefixes.iter().any(alike) {
                let why = "begins as another issuer's does, and people of the two could not be told apart; give each its own";
                wrong.push(source.wrong(&field("prefix"), why));
            }
            prefixes.push(&*one.prefix);
            match checked(&source, one) {
                Ok(provider) => all.push(provider),
                Err((name, why)) => wrong.push(source.wrong(&field(&name), &why)),
            }
        }
        if !file.passwords && all.is_empty() && wrong.is_empty() {
            let why = "is off, and there is no issuer: nobody could sign in";
            wrong.push(source.wrong("passwords", why));
        }
        if wrong.is_empty() {
            Ok(Self {
                session_lasts,
                step_up_lasts,
                passwords: file.passwords,
                all,
            })
        } else {
            Err(wrong.join("\n"))
        }
    }

    /// Whether somebody may be signed in whom this issuer, or a password of ours, vouches for.
    pub(in crate::registry) fn lets_in(&self, issuer: &str) -> bool {
        if issuer.is_empty() {
            return self.passwords;
        }
        self.all.iter().any(|known| known.issuer.name() == issuer)
    }

    /// Whether browsers come back from another issuer the same way.
    pub(in crate::registry) fn share_a_path(&self, one: &Provider) -> bool {
        let same = |other: &&Provider| other.redirect_path == one.redirect_path;
        self.all.iter().filter(same).count() > 1
    }

    /// The one that is called so, or the only one.
    pub(in crate::registry) fn find(&self, name: &str) -> Option<&Provider> {
        match self.all.as_slice() {
            [only] if name.is_empty() => Some(only),
            all => all.iter().find(|provider| &*provider.name == name),
        }
    }
}

fn span(text: &str) -> Result<Span, String> {
    let span = Span::parse(text).map_err(|error| error.to_string())?;
    if span < Span::from_secs(60) || span > LONGEST {
        return Err("is less than a minute or more than 30 days".into());
    }
    Ok(span)
}

/// A provider, or the first field that is wrong.
fn checked(source: &Source, one: &SignInIssuer) -> Result<Provider, (String, String)> {
    let at = |field: &str| {
        let field = field.to_owned();
        move |why: String| (field, why)
    };
    let given = |field: &str, text: &str| {
        if text.trim().is_empty() {
            return Err((field.to_owned(), "is empty".to_owned()));
        }
        Ok(Box::from(text))
    };
    let name = named(&one.name).map_err(at("name"))?;
    callable(&one.issuer).map_err(at("issuer"))?;
    let client = given("client_id", &one.client_id)?;
    let secret = one
        .client_secret_file
        .as_deref()
        .map(|file| {
            let text = source.text(file)?;
            let secret = text.trim();
            if secret.is_empty() {
                return Err("holds no secret".to_owned());
            }
            Ok(Box::from(secret))
        })
        .transpose()
        .map_err(at("client_secret_file"))?;
    let mut roles = Vec::new();
    for (number, known) in one.roles.iter().enumerate() {
        let field = format!("roles[{number}].role");
        let role = role_of_person(&known.role).map_err(at(&field))?;
        roles.push((
            given(&format!("roles[{number}].group"), &known.group)?,
            role,
        ));
    }
    let role = one.role.as_deref().map(role_of_person).transpose();
    let role = role.map_err(at("role"))?;
    if role.is_none() && roles.is_empty() {
        let why = "is left out, and `roles` too: nobody would be let in";
        return Err(("role".into(), why.into()));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._".contains(&b);
    if !one.redirect_path.starts_with('/') || !one.redirect_path.bytes().all(plain) {
        let why = "is no path such as `/callback`";
        return Err(("redirect_path".into(), why.into()));
    }
    let blank = one
        .step_up
        .acr
        .iter()
        .position(|acr| acr.is_empty() || acr.contains(' '));
    if let Some(number) = blank {
        let why = "is empty or holds a blank, and no `acr` does";
        return Err((format!("step_up.acr[{number}]"), why.into()));
    }
    let allow = allowed(&one.allow).map_err(at("allow"))?;
    let ca = one.ca.as_deref().map(|ca| source.beside(ca));
    let caller = Caller::new(allow, ca.as_deref(), None).map_err(at("ca"))?;
    let mut scope = vec!["openid"];
    scope.extend(
        one.scopes
            .iter()
            .map(String::as_str)
            .filter(|scope| *scope != "openid"),
    );
    Ok(Provider {
        name,
        issuer: Issuer::new(&one.issuer, &client, None, caller),
        client,
        secret,
        redirect_path: one.redirect_path.as_str().into(),
        scope: scope.join(" ").into(),
        acr: one.step_up.acr.join(" ").into(),
        amr: one.step_up.amr.clone(),
        name_claim: given("name_claim", &one.name_claim)?,
        prefix: one.prefix.as_str().into(),
        groups_claim: given("groups_claim", &one.groups_claim)?,
        roles,
        role,
    })
}

impl Provider {
    /// The claims that say who somebody is here.
    pub(in crate::registry) fn wanted(&self) -> Vec<&str> {
        let mut wanted = vec![&*self.name_claim, &*self.groups_claim];
        wanted.extend((&*self.name_claim == "email").then_some("email_verified"));
        wanted
    }

    /// Who a token says has signed in.
    ///
    /// # Errors
    ///
    /// Who is nobody here, and why.
    pub(in crate::registry) fn arrival(&self, claims: &Claims) -> Result<Arrival, String> {
        let subject = claims.text("sub").filter(|subject| !subject.is_empty());
        let subject = subject.ok_or("its token has no `sub`")?;
        let claim = &*self.name_claim;
        let name = claims.text(claim).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| {
            format!(
                "its token has no `{claim}`; ask for another scope, or set another `name_claim`"
            )
        })?;
        // An address that nobody checked is anybody's.
        if claim == "email" && claims.get("email_verified") != Some(&Json::Bool(true)) {
            return Err("its token does not say that the address is verified".into());
        }
        let identity = format!("user:{}{name}", self.prefix);
        let identity = Principal::parse_human(&identity).map_err(|error| error.to_string())?;
        let groups = claims.texts(&self.groups_claim);
        let fits = |(group, _): &&(Box<str>, Role)| groups.contains(&&**group);
        let role = self.roles.iter().find(fits).map(|(_, role)| *role);
        let role = role.or(self.role).ok_or_else(|| {
            format!("`{identity}` is in no group that is let in; see `roles` of this issuer")
        })?;
        let acr = claims.text("acr");
        let amr = claims.texts("amr");
        let mut acrs = self.acr.split(' ').filter(|known| !known.is_empty());
        let strong = acr.is_some_and(|acr| acrs.any(|known| known == acr))
            || amr
                .iter()
                .any(|said| self.amr.iter().any(|known| known == said));
        // Without a time it may have been any time ago.
        let at = claims.time("auth_time")?;
        let said = [
            acr.map(|acr| format!("acr {acr}")),
            (!amr.is_empty()).then(|| format!("amr {}", amr.join(" "))),
            at.map(|at| format!("at {at}")),
        ];
        let said: Vec<_> = said.into_iter().flatten().collect();
        Ok(Arrival {
            subject: subject.into(),
            identity: identity.as_str().into(),
            role,
            assurance: format!("{}: {}", self.name, said.join(", ")).into(),
            stepped_up: at.filter(|_| strong),
        })
    }
}
