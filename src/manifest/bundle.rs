//! A folder of manifests, taken whole or not at all.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use crate::{
    domain::{Digest, Invalid, Kind, Name, Tier},
    engine::{Change, Snapshot, SnapshotError, Source},
};

use super::{
    ControlManifest, DomainManifest, ExceptionManifest, GroupManifest, PersonManifest, Places,
    Problem, SubjectManifest, TierPolicyManifest, document,
    faults::faults_of,
    fingerprint::{digest_of, written},
    folder::{File, files},
    json,
    secret::{is_secret, refuse_secrets},
};

/// Most problems told at once.
const MAX_PROBLEMS: usize = 50;

/// A folder that was read without a problem.
#[derive(Debug)]
pub struct Bundle {
    digest: Digest,
    changes: Vec<Change>,
    files: Vec<File>,
    sources: HashMap<Source, Spot>,
}

/// How many objects of each kind a bundle holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Controls.
    pub controls: usize,
    /// Subjects.
    pub subjects: usize,
    /// Exceptions.
    pub exceptions: usize,
}

/// Where an object was read.
#[derive(Clone, Copy, Debug)]
struct Spot {
    file: usize,
    /// Lines before the document.
    first: usize,
    /// Bytes of the file that are the document.
    from: usize,
    to: usize,
}

impl Bundle {
    /// Reads every `.yaml` and `.yml` file below `folder`, but for hidden ones, test suites
    /// (`*_test.yaml`), requests (`*_request.yaml`) and the settings file `exeat.yaml`.
    ///
    /// # Errors
    ///
    /// Every problem found, each with its place.
    pub fn read(folder: &Path) -> Result<Self, Vec<Problem>> {
        Self::parse(files(folder)?)
    }

    /// Reads files that came from elsewhere, each with its name.
    ///
    /// # Errors
    ///
    /// Every problem found, each with its place.
    pub fn read_files(
        files: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        let files = files.into_iter();
        Self::parse(
            files
                .map(|(name, content)| File { name, content })
                .collect(),
        )
    }

    /// The manifests of a folder as they are, each file with its name.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read.
    pub fn gather(folder: &Path) -> Result<Vec<(String, String)>, Vec<Problem>> {
        let files = files(folder)?.into_iter();
        Ok(files.map(|file| (file.name, file.content)).collect())
    }

    /// Every object by name, with its manifest as canonical JSON and the change it makes.
    ///
    /// # Errors
    ///
    /// Manifests that do not read the same as JSON, each with its place.
    pub fn objects(&self) -> Result<Vec<(Name, String, Change)>, Vec<Problem>> {
        let (mut objects, mut problems) = (Vec::new(), Vec::new());
        for (source, spot) in &self.sources {
            let (Some(kind), Some(file)) = (Kind::parse(source.kind), self.files.get(spot.file))
            else {
                continue;
            };
            match json::of_yaml(text_of(file, *spot)).and_then(|json| {
                let value = serde_json::from_str(&json);
                let value = value.map_err(|error| Invalid::new("", error.to_string(), ""))?;
                refuse_secrets(&value, "")?;
                let change = json::read_json(kind, 1, &json)?;
                Ok((json, change))
            }) {
                Ok((json, change)) => objects.push((Name::new(kind, &source.id), json, change)),
                Err(error) => {
                    // A secret is not repeated, also where it is a name.
                    let of = if is_secret(&source.id) {
                        source.kind.to_owned()
                    } else {
                        source.to_string()
                    };
                    problems.push(locate(file, *spot, error.path(), format!("{of}: {error}")));
                }
            }
        }
        if problems.is_empty() {
            objects.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(objects)
        } else {
            Err(problems)
        }
    }

    /// A problem with the object called `name`, where it stands in the files.
    pub fn problem_with(&self, name: &Name, message: &str) -> Problem {
        self.problem(&SnapshotError {
            source: Source {
                kind: name.kind.name(),
                id: name.id.to_string(),
            },
            invalid: Invalid::new("", message, ""),
            fault: None,
        })
    }

    /// Reads a folder, if there is one, and the manifests of `content` beside it.
    ///
    /// # Errors
    ///
    /// Every problem found.
    pub fn read_beside(
        folder: Option<&Path>,
        name: &str,
        content: &str,
    ) -> Result<Self, Vec<Problem>> {
        let mut all = folder.map(files).transpose()?.unwrap_or_default();
        if !document::split(content).is_empty() {
            all.push(File {
                name: name.to_owned(),
                content: content.to_owned(),
            });
        }
        Self::parse(all)
    }
    fn parse(files: Vec<File>) -> Result<Self, Vec<Problem>> {
        let mut hash = Sha256::new();
        let mut problems = Vec::new();
        let mut changes = Vec::new();
        let mut sources: HashMap<Source, Spot> = HashMap::new();
        for (number, file) in files.iter().enumerate() {
            for part in [file.name.as_bytes(), file.content.as_bytes()] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
            for (first, text) in document::split(&file.content) {
                // More are not told, and finding each one's line reads the file again.
                if problems.len() >= MAX_PROBLEMS {
                    break;
                }
                let from = text
                    .as_ptr()
                    .addr()
                    .saturating_sub(file.content.as_ptr().addr());
                let spot = Spot {
                    file: number,
                    first,
                    from,
                    to: from.saturating_add(text.len()),
                };
                match read_document(file, spot) {
                    Err(first) => problems.extend(all(file, spot, first)),
                    Ok((source, change)) => match sources.entry(source) {
                        Entry::Vacant(place) => {
                            place.insert(spot);
                            changes.push(change);
                        }
                        Entry::Occupied(known) => {
                            let other = known.get();
                            let first_name =
                                files.get(other.file).map_or("", |file| file.name.as_str());
                            let field = if known.key().kind == "TierPolicy" {
                                "tier"
                            } else {
                                "id"
                            };
                            let message = format!(
                                "{} was already read from {first_name}:{}; ids are unique in a bundle",
                                known.key(),
                                other.first.saturating_add(1)
                            );
                            problems.push(locate(file, spot, field, message));
                        }
                    },
                }
            }
        }
        if problems.is_empty() && changes.is_empty() {
            problems.push(Problem::whole(
                files.first().map_or("", |file| &file.name),
                "holds no manifests",
            ));
        }
        if let (Ok(digest), true) = (written(&hash.finalize()), problems.is_empty()) {
            return Ok(Self {
                digest,
                changes,
                files,
                sources,
            });
        }
        // A condition that cannot be read is wrong whatever else is; what refers to something else may
        // be right once that is.
        let rest = Self {
            digest: digest_of(b"").map_err(|error| vec![Problem::whole("", error.to_string())])?,
            changes,
            files,
            sources,
        };
        let errors = Snapshot::empty(rest.digest.clone()).after(
            rest.changes.clone(),
            rest.digest.clone(),
            0,
        );
        let errors = errors.err().unwrap_or_default();
        let faults = errors.iter().filter(|error| error.fault.is_some());
        problems.extend(faults.map(|error| rest.problem(error)));
        problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        problems.truncate(MAX_PROBLEMS);
        Err(problems)
    }

    /// The digest of the bundle's bytes: the same files give the same digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The snapshot of exactly what the bundle holds.
    ///
    /// # Errors
    ///
    /// Every problem found while putting it together, each with its place.
    pub fn snapshot(&self, revision: u64) -> Result<Snapshot, Vec<Problem>> {
        let empty = digest_of(b"").map_err(|error| vec![Problem::whole("", error.to_string())])?;
        Snapshot::empty(empty)
            .after(self.changes.clone(), self.digest.clone(), revision)
            .map_err(|errors| {
                let mut problems: Vec<Problem> =
                    errors.iter().map(|error| self.problem(error)).collect();
                problems
                    .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
                problems.truncate(MAX_PROBLEMS);
                problems
            })
    }

    /// What the bundle holds, as changes of an empty snapshot.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// An error of a snapshot, where its object stands in the files.
    pub fn problem(&self, error: &SnapshotError) -> Problem {
        let spot = self.sources.get(&error.source).copied();
        let Some((spot, file)) = spot.and_then(|spot| Some((spot, self.files.get(spot.file)?)))
        else {
            return Problem::whole("", error.to_string());
        };
        let Some(fault) = &error.fault else {
            return locate(
                file,
                spot,
                error.invalid.path(),
                format!("{}: {}", error.source, error.invalid),
            );
        };
        // A fault within a condition is shown where it stands in the file, if that can be told.
        let place = locate(file, spot, error.invalid.path(), String::new());
        let message = format!(
            "{}: `{}`: {}",
            error.source,
            error.invalid.path(),
            fault.message()
        );
        let (line, column) = fault.position();
        let rest: String = file
            .content
            .lines()
            .nth(place.line.saturating_sub(1))
            .unwrap_or_default()
            .chars()
            .skip(place.column.saturating_sub(1))
            .collect();
        match rest.chars().next() {
            Some('|') => {
                let below = place.line.saturating_add(line);
                let indent = file
                    .content
                    .lines()
                    .skip(place.line)
                    .find(|line| !line.trim().is_empty())
                    .map_or(0, |line| line.chars().take_while(|c| *c == ' ').count());
                Problem::at(
                    &file.name,
                    &file.content,
                    below,
                    indent.saturating_add(column),
                    message,
                )
            }
            Some('>') | None => {
                let shown = fault.to_string();
                Problem {
                    message: format!(
                        "{message}\n{}",
                        shown.lines().skip(1).collect::<Vec<_>>().join("\n")
                    ),
                    text: String::new(),
                    ..place
                }
            }
            Some(quote) => {
                let inside = usize::from(quote == '"' || quote == '\'');
                Problem::at(
                    &file.name,
                    &file.content,
                    place.line.saturating_add(line).saturating_sub(1),
                    place
                        .column
                        .saturating_add(column)
                        .saturating_add(inside)
                        .saturating_sub(1),
                    message,
                )
            }
        }
    }

    /// The text of the manifest of `kind` called `id`.
    pub fn document(&self, kind: Kind, id: &str) -> Option<&str> {
        let spot = self.sources.get(&Source {
            kind: kind.name(),
            id: id.to_owned(),
        })?;
        self.files.get(spot.file).map(|file| text_of(file, *spot))
    }

    /// How many objects of each kind it holds.
    pub fn counts(&self) -> Counts {
        self.changes
            .iter()
            .fold(Counts::default(), |mut counts, change| {
                match change {
                    Change::PutControl(_) => counts.controls = counts.controls.saturating_add(1),
                    Change::PutSubject(_) => counts.subjects = counts.subjects.saturating_add(1),
                    Change::PutException(_) => {
                        counts.exceptions = counts.exceptions.saturating_add(1);
                    }
                    Change::PutTier(..)
                    | Change::PutDomain(_)
                    | Change::PutPerson(_)
                    | Change::PutGroup(_)
                    | Change::PutIncident(_)
                    | Change::PutProposal(_)
                    | Change::RemovePerson(_)
                    | Change::RemoveGroup(_)
                    | Change::RemoveDomain(_)
                    | Change::RemoveControl(_)
                    | Change::RemoveSubject(_)
                    | Change::RemoveException(_) => {}
                }
                counts
            })
    }
}

fn text_of(file: &File, spot: Spot) -> &str {
    file.content.get(spot.from..spot.to).unwrap_or_default()
}

/// A problem at the field `path` of a document.
fn locate(file: &File, spot: Spot, path: &str, message: String) -> Problem {
    let (line, column) = Places::of(text_of(file, spot)).find(path);
    Problem::at(
        &file.name,
        &file.content,
        line.saturating_add(spot.first),
        column,
        message,
    )
}

/// Everything that is wrong with a document of which `first` was found when it was read.
fn all(file: &File, spot: Spot, first: Problem) -> Vec<Problem> {
    let text = text_of(file, spot);
    let kind = document::kind(&file.name, &file.content, spot.first, text);
    let Some(kind) = kind.ok().filter(|kind| Kind::APPLIED.contains(kind)) else {
        return vec![first];
    };
    let (of, faults) = faults_of(kind, text);
    // The library says of what is missing further in that it is, and not where.
    let missing = |fault: &Invalid| fault.what() == first.message;
    let top = |fault: &Invalid| fault.path().is_empty();
    let vague =
        faults.iter().any(missing) && !faults.iter().any(|fault| missing(fault) && top(fault));
    let places = Places::of(text);
    let mut problems = Vec::new();
    for fault in &faults {
        let (line, column) = places.find(fault.path());
        let line = line.saturating_add(spot.first);
        let known = if let Some(field) = fault.what().strip_prefix("missing field ") {
            top(fault)
                && first.message.starts_with("missing field")
                && first.message.contains(field)
        } else {
            // Of what is unknown the library points at the name, which may stand a line above.
            let last = fault.path().rsplit('.').next().unwrap_or_default();
            let said = first
                .message
                .starts_with(&format!("{} `{last}`", fault.what()));
            let near = first.line == line || first.line.saturating_add(1) == line;
            said && near || (line, column) == (first.line, first.column)
        };
        if !known {
            let message = format!("{of}{fault}");
            problems.push(Problem::at(
                &file.name,
                &file.content,
                line,
                column,
                message,
            ));
        }
    }
    if !vague || problems.is_empty() {
        problems.push(first);
    }
    for problem in &mut problems {
        // A secret is not repeated, wherever it stands.
        if is_secret(&problem.message) {
            "something here looks like a secret; name where it is kept, and revoke it if it is one"
                .clone_into(&mut problem.message);
            problem.text.clear();
        }
    }
    problems
}

fn read_document(file: &File, spot: Spot) -> Result<(Source, Change), Problem> {
    let text = text_of(file, spot);
    let kind = document::kind(&file.name, &file.content, spot.first, text)?;
    let invalid = |source: &Source, error: &Invalid| {
        locate(file, spot, error.path(), format!("{source}: {error}"))
    };
    let source = |id: &str| Source {
        kind: kind.name(),
        id: id.to_owned(),
    };
    macro_rules! read {
        ($manifest:ty, $id:ident) => {{
            let manifest: $manifest = document::read(&file.name, &file.content, spot.first, text)?;
            let source = source(&manifest.$id);
            (
                source.clone(),
                manifest.parse().map_err(|error| invalid(&source, &error))?,
            )
        }};
    }
    Ok(match kind {
        Kind::Control => {
            let (source, control) = read!(ControlManifest, id);
            (source, Change::PutControl(control))
        }
        Kind::Subject => {
            let (source, subject) = read!(SubjectManifest, id);
            (source, Change::PutSubject(subject))
        }
        Kind::Exception => {
            let (source, exception) = read!(ExceptionManifest, id);
            (source, Change::PutException(exception))
        }
        Kind::Domain => {
            let (source, domain) = read!(DomainManifest, id);
            (source, Change::PutDomain(domain))
        }
        Kind::Person => {
            let (source, person) = read!(PersonManifest, id);
            (source, Change::PutPerson(person))
        }
        Kind::Group => {
            let (source, group) = read!(GroupManifest, id);
            (source, Change::PutGroup(group))
        }
        Kind::Finding => {
            let message = "`Finding` is not applied; a control's run finds it";
            return Err(locate(file, spot, "kind", message.into()));
        }
        Kind::Proposal => {
            let message = "`Proposal` is not applied; propose with `exeat control propose`";
            return Err(locate(file, spot, "kind", message.into()));
        }
        Kind::Incident => {
            let message = "`Incident` is not applied; declare it with `exeat incident open`";
            return Err(locate(file, spot, "kind", message.into()));
        }
        Kind::Case => {
            let message = "`Case` is not applied; ask with `exeat exception request`";
            return Err(locate(file, spot, "kind", message.into()));
        }
        Kind::TierPolicy => {
            let manifest: TierPolicyManifest =
                document::read(&file.name, &file.content, spot.first, text)?;
            let (tier, rules): (Tier, _) = manifest
                .parse()
                .map_err(|error| invalid(&source(""), &error))?;
            (source(tier.name()), Change::PutTier(tier, rules))
        }
    })
}
