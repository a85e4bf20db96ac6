//! Our evaluator against the crate's own interpreter, over generated expressions and worlds.

use crate::support::{Dice, cel_world, interpret};
use exeat::{
    domain::{Value, Verdict},
    engine::{
        World,
        condition::{Names, Roots, compile, on_deep_stack},
    },
    manifest::from_json,
};
use serde_json::{Value as Json, json};

const NOW: &str = "2026-11-22T12:00:00Z";
const TIMES: &[&str] = &[
    "2026-11-22T11:59:59Z",
    "2026-11-22T12:00:00Z",
    "2026-11-22T12:00:01Z",
    "2026-10-01T00:00:00Z",
    "2027-02-01T00:00:00.5Z",
];
const WORDS: &[&str] = &[
    "",
    "prod",
    "test",
    "HIGH",
    "LOW",
    "read",
    "write",
    "sha256:t1",
    "user:alice",
    "é",
];
const SPANS: &[&str] = &["0s", "1s", "90s", "2160h", "1h30m", "-5m"];

/// The type of an expression to make.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bool,
    Int,
    Double,
    Str,
    Time,
    Span,
}

/// What a loop's element is.
#[derive(Clone, Copy)]
enum Element {
    Tool,
    Credential,
    Approval,
    Text,
}

struct Maker<'d> {
    dice: &'d mut Dice,
    locals: Vec<(String, Element)>,
}

impl Maker<'_> {
    fn text(&mut self) -> String {
        format!("'{}'", self.dice.pick(WORDS))
    }

    /// Lists of the subject and of the elements in reach.
    fn list(&mut self) -> (String, Element) {
        let local = self.locals.last().cloned();
        match (self.dice.roll(7), local) {
            (0, Some((name, Element::Tool))) => (format!("{name}.permissions"), Element::Text),
            (0, Some((name, Element::Approval))) => (format!("{name}.approvers"), Element::Text),
            (0, Some((name, Element::Credential))) => (format!("{name}.scopes"), Element::Text),
            (0 | 1, _) => ("subject.tools".into(), Element::Tool),
            (2, _) => ("subject.credentials".into(), Element::Credential),
            (3, _) => ("subject.approvals".into(), Element::Approval),
            (4, _) => ("subject.purpose.permitted_ids".into(), Element::Text),
            (5, _) => (
                format!("[{}, {}]", self.text(), self.make(Kind::Str, 1)),
                Element::Text,
            ),
            _ => ("params.words".into(), Element::Text),
        }
    }

    fn looped(&mut self, macro_: &str, body: Kind, depth: usize) -> String {
        let (list, element) = self.list();
        let name = format!("v{}", self.locals.len());
        self.locals.push((name.clone(), element));
        let body = self.make(body, depth.saturating_sub(1));
        self.locals.pop();
        format!("{list}.{macro_}({name}, {body})")
    }

    /// An attribute of the kind, of an element in reach or of a root.
    fn attribute(&mut self, kind: Kind) -> String {
        if !self.locals.is_empty() && self.dice.often(60) {
            let at = self.dice.roll(self.locals.len());
            let (name, element) = self.locals[at].clone();
            let found = match (element, kind) {
                (Element::Tool, Kind::Str) => {
                    Some(*self.dice.pick(&[&"server", &"name", &"definition_digest"]))
                }
                (Element::Tool, Kind::Bool) => {
                    Some(*self.dice.pick(&[&"third_party", &"approved"]))
                }
                (Element::Tool, Kind::Time) => {
                    Some(*self.dice.pick(&[&"review_time", &"last_used_time"]))
                }
                (Element::Credential, Kind::Str) => {
                    Some(*self.dice.pick(&[&"state", &"kind", &"store"]))
                }
                (Element::Credential, Kind::Bool) => Some("exposed"),
                (Element::Credential, Kind::Time) => {
                    Some(*self.dice.pick(&[&"issue_time", &"expire_time"]))
                }
                (Element::Approval, Kind::Str) => {
                    Some(*self.dice.pick(&[&"kind", &"requester", &"fingerprint"]))
                }
                (Element::Approval, Kind::Time) => {
                    Some(*self.dice.pick(&[&"effective_time", &"expire_time"]))
                }
                (Element::Text, Kind::Str) => return name,
                _ => None,
            };
            if let Some(field) = found {
                return format!("{name}.{field}");
            }
        }
        match kind {
            Kind::Bool => (*self.dice.pick(&[
                &"subject.owner.active",
                &"subject.model.deprecated",
                &"subject.lineage.complete",
                &"true",
                &"false",
            ]))
            .to_owned(),
            Kind::Int => match self.dice.roll(3) {
                0 => "params.limit".into(),
                1 => "request.context.rows".into(),
                _ => format!("{}", self.dice.roll(5)),
            },
            Kind::Double => (*self.dice.pick(&[&"params.ratio", &"0.5", &"2.0"])).to_owned(),
            Kind::Str => match self.dice.roll(5) {
                0 => "subject.environment".into(),
                1 => "subject.owner.principal".into(),
                2 => "request.purpose".into(),
                3 => "request.tool.name".into(),
                _ => self.text(),
            },
            Kind::Time => (*self.dice.pick(&[
                &"now",
                &"subject.owner.attest_time",
                &"subject.heartbeat_time",
                &"timestamp('2026-11-22T12:00:00Z')",
            ]))
            .to_owned(),
            Kind::Span => format!("duration('{}')", self.dice.pick(SPANS)),
        }
    }

    fn make(&mut self, kind: Kind, depth: usize) -> String {
        if depth == 0 || self.dice.often(15) {
            return self.attribute(kind);
        }
        let less = depth - 1;
        let loops = self.locals.len() < 2;
        match kind {
            Kind::Bool => match self.dice.roll(13) {
                0 => format!(
                    "({} && {})",
                    self.make(Kind::Bool, less),
                    self.make(Kind::Bool, less)
                ),
                1 => format!(
                    "({} || {})",
                    self.make(Kind::Bool, less),
                    self.make(Kind::Bool, less)
                ),
                2 => format!("!{}", self.make(Kind::Bool, less)),
                3 | 4 => {
                    let of = [Kind::Int, Kind::Double, Kind::Str, Kind::Time, Kind::Span]
                        [self.dice.roll(5)];
                    let sign = *self.dice.pick(&[&"==", &"!=", &"<", &"<=", &">", &">="]);
                    format!("({} {sign} {})", self.make(of, less), self.make(of, less))
                }
                5 => format!(
                    "({} ? {} : {})",
                    self.make(Kind::Bool, less),
                    self.make(Kind::Bool, less),
                    self.make(Kind::Bool, less)
                ),
                6 if loops => self.looped("exists", Kind::Bool, depth),
                7 if loops => self.looped("all", Kind::Bool, depth),
                8 if loops => self.looped("exists_one", Kind::Bool, depth),
                9 => format!(
                    "({} in ['prod', {}])",
                    self.make(Kind::Str, less),
                    self.text()
                ),
                10 => format!(
                    "has({})",
                    self.dice.pick(&[
                        "subject.owner",
                        "subject.owner.attest_time",
                        "request.tool",
                        "request.context.rows",
                        "subject.model.digest"
                    ])
                ),
                11 => format!(
                    "{}.{}({})",
                    self.make(Kind::Str, less),
                    self.dice.pick(&["contains", "startsWith", "endsWith"]),
                    self.text()
                ),
                _ => format!("{}.matches('^[a-z]+$')", self.make(Kind::Str, less)),
            },
            Kind::Int => match self.dice.roll(6) {
                0 => format!(
                    "({} {} {})",
                    self.make(Kind::Int, less),
                    self.dice.pick(&["+", "-", "*", "/", "%"]),
                    self.make(Kind::Int, less)
                ),
                1 => format!("size({})", self.list().0),
                2 if loops => format!("size({})", self.looped("filter", Kind::Bool, depth)),
                3 => format!("-({})", self.make(Kind::Int, less)),
                4 => format!("{}.getHours()", self.make(Kind::Time, less)),
                _ => self.attribute(Kind::Int),
            },
            Kind::Double => match self.dice.roll(3) {
                0 => format!(
                    "({} {} {})",
                    self.make(Kind::Double, less),
                    // Quotients that are no numbers are errors of ours and infinities of theirs.
                    self.dice.pick(&["+", "-", "*", "/ 2.0 +"]),
                    self.make(Kind::Double, less)
                ),
                1 => format!("double({})", self.make(Kind::Int, less)),
                _ => self.attribute(Kind::Double),
            },
            Kind::Str => format!(
                "({} ? {} : {})",
                self.make(Kind::Bool, less),
                self.attribute(Kind::Str),
                self.text()
            ),
            Kind::Time => format!(
                "({} {} {})",
                self.make(Kind::Time, less),
                self.dice.pick(&["+", "-"]),
                self.make(Kind::Span, less)
            ),
            Kind::Span => match self.dice.roll(2) {
                0 => format!(
                    "({} - {})",
                    self.make(Kind::Time, less),
                    self.make(Kind::Time, less)
                ),
                _ => self.attribute(Kind::Span),
            },
        }
    }
}

/// A world in which anything may be missing.
fn world(dice: &mut Dice) -> Json {
    let word = |dice: &mut Dice| Json::from(dice.pick(WORDS));
    let words = |dice: &mut Dice| {
        Json::Array(
            (0..dice.roll(4))
                .map(|_| Json::from(dice.pick(WORDS)))
                .collect(),
        )
    };
    let time = |dice: &mut Dice| Json::from(dice.pick(TIMES));
    let record = |dice: &mut Dice, fields: &[(&str, Json)]| -> Json {
        fields
            .iter()
            .filter(|_| dice.often(85))
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let tools: Vec<Json> = (0..dice.roll(4))
        .map(|_| {
            let fields = [
                ("server", word(dice)),
                ("name", word(dice)),
                ("definition_digest", word(dice)),
                ("permissions", words(dice)),
                ("third_party", dice.often(50).into()),
                ("approved", dice.often(50).into()),
                ("review_time", time(dice)),
                ("last_used_time", time(dice)),
            ];
            record(dice, &fields)
        })
        .collect();
    let credentials: Vec<Json> = (0..dice.roll(3))
        .map(|_| {
            let fields = [
                ("state", word(dice)),
                ("kind", word(dice)),
                ("store", word(dice)),
                ("exposed", dice.often(50).into()),
                ("issue_time", time(dice)),
                ("expire_time", time(dice)),
                ("scopes", words(dice)),
            ];
            record(dice, &fields)
        })
        .collect();
    let approvals: Vec<Json> = (0..dice.roll(3))
        .map(|_| {
            let fields = [
                ("kind", word(dice)),
                ("requester", word(dice)),
                ("fingerprint", word(dice)),
                ("approvers", words(dice)),
                ("effective_time", time(dice)),
                ("expire_time", time(dice)),
            ];
            record(dice, &fields)
        })
        .collect();
    let owner = [
        ("principal", word(dice)),
        ("active", dice.often(50).into()),
        ("attest_time", time(dice)),
    ];
    let owner = record(dice, &owner);
    let subject = [
        ("environment", word(dice)),
        ("owner", owner),
        ("purpose", json!({"permitted_ids": words(dice)})),
        (
            "model",
            json!({"deprecated": dice.often(50), "digest": word(dice)}),
        ),
        ("lineage", json!({"complete": dice.often(50)})),
        ("tools", tools.into()),
        ("credentials", credentials.into()),
        ("approvals", approvals.into()),
        ("heartbeat_time", time(dice)),
    ];
    let subject = record(dice, &subject);
    let request = [
        ("tool", json!({"server": "mcp", "name": "search"})),
        (
            "purpose",
            word(dice)
                .as_str()
                .filter(|w| !w.is_empty())
                .unwrap_or("prod")
                .into(),
        ),
        (
            "context",
            if dice.often(80) {
                json!({"rows": i64::try_from(dice.roll(9)).expect("small") - 4})
            } else {
                json!({})
            },
        ),
    ];
    let mut request = record(dice, &request);
    // The wire always has these.
    request["action"] = "tools/call".into();
    if request.get("context").is_none() {
        request["context"] = json!({});
    }
    json!({"now_time": NOW, "params": {"limit": 2, "ratio": 0.5, "words": ["prod", "read"]}, "subject": subject, "request": request})
}

#[test]
fn generated_conditions_decide_as_the_interpreter_does() {
    let cases: usize = std::env::vars()
        .find(|(name, _)| name == "EXEAT_CASES")
        .and_then(|(_, n)| n.parse().ok())
        .unwrap_or(if cfg!(debug_assertions) {
            6_000
        } else {
            200_000
        });
    let seed = Dice::seed();
    println!("EXEAT_SEED={seed} EXEAT_CASES={cases}");
    let (compared, refused, [yes, no, unknown]) = on_deep_stack(move || {
        let mut dice = Dice::new(seed);
        let (mut compared, mut refused, mut seen) = (0, 0, [0; 3]);
        while compared < cases {
            let depth = 1 + dice.roll(4);
            let source = Maker {
                dice: &mut dice,
                locals: Vec::new(),
            }
            .make(Kind::Bool, depth);
            let params = from_json(&json!({"limit": 2, "ratio": 0.5, "words": ["prod", "read"]}));
            let mut names = Names::default();
            let Ok(condition) = compile(&source, Roots::RUNTIME, &params, &mut names) else {
                // What can never be evaluated, or would cost too much, is refused at load.
                refused += 1;
                continue;
            };
            for _ in 0..4 {
                let mut world = world(&mut dice);
                let theirs = interpret(&source, &cel_world(&world));
                world.as_object_mut().expect("a map").shift_remove("params");
                let ours = match World::parse(&from_json(&world))
                    .expect("a world")
                    .judge(&condition, &names)
                {
                    Verdict::Fail => Some(true),
                    Verdict::Pass => Some(false),
                    Verdict::Indeterminate(_) => None,
                };
                assert_eq!(ours, theirs, "seed {seed}\n{source}\n{world:#}");
                seen[match ours {
                    Some(true) => 0,
                    Some(false) => 1,
                    None => 2,
                }] += 1;
                compared += 1;
            }
        }
        (compared, refused, seen)
    })
    .expect("the comparison holds");
    println!(
        "{compared} compared: {yes} true, {no} false, {unknown} cannot tell; {refused} refused at load"
    );
    assert!(
        yes * 20 > compared && no * 20 > compared && unknown * 20 > compared,
        "all three answers occur"
    );
    assert!(refused * 4 < compared, "most of what is made can be loaded");
}

#[test]
fn the_most_expensive_condition_is_bounded() {
    // As costly as load permits, over the largest request the wire lets in.
    let source = "request.context.a.all(x, request.context.b.exists(y, y == x) || x != x)";
    let refused = on_deep_stack(|| {
        compile(
            source,
            Roots::RUNTIME,
            &Value::map([]),
            &mut Names::default(),
        )
        .is_err()
    })
    .expect("no panic");
    assert!(
        refused,
        "two nested walks over a request's lists are refused at load"
    );
    let source = "request.context.a.exists(x, x.matches('^(a+)+$') && false)";
    let refused = on_deep_stack(|| {
        compile(
            source,
            Roots::RUNTIME,
            &Value::map([]),
            &mut Names::default(),
        )
        .is_err()
    })
    .expect("no panic");
    assert!(
        refused,
        "a pattern over each of a thousand long texts is refused at load"
    );
}
