//! Who may call what: one table.

use std::fmt;

/// In the place of a role: shut out, and remembered because a lease may still run.
pub(super) const EXPELLED: &str = "expelled";

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything but following as a sidecar.
    Admin,
    /// Writes controls, subjects, policies and domains.
    Author,
    /// Decides about exceptions, and takes back.
    Approver,
    /// Reads.
    Viewer,
    /// Another system: says that incidents began or are over.
    Integration,
    /// Follows.
    Sidecar,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Admin,
        Self::Author,
        Self::Approver,
        Self::Viewer,
        Self::Integration,
        Self::Sidecar,
    ];

    /// The name as written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Author => "author",
            Self::Approver => "approver",
            Self::Viewer => "viewer",
            Self::Integration => "integration",
            Self::Sidecar => "sidecar",
        }
    }

    /// The role called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const READ: &[Role] = &[Role::Admin, Role::Author, Role::Approver, Role::Viewer];
const DECLARE: &[Role] = &[
    Role::Admin,
    Role::Author,
    Role::Approver,
    Role::Viewer,
    Role::Integration,
];
const WRITE: &[Role] = &[Role::Admin, Role::Author];
const ADMIN: &[Role] = &[Role::Admin];
const FOLLOW: &[Role] = &[Role::Sidecar];

/// Every call with the roles that may make it. Commands look at more than the role where that
/// depends on what is asked: exceptions, thaws and owners.
pub const CALLS: &[(&str, &[Role])] = &[
    ("/exeat.v1.ObjectService/Apply", WRITE),
    ("/exeat.v1.ObjectService/GetObject", READ),
    ("/exeat.v1.ObjectService/ListObjects", READ),
    ("/exeat.v1.ObjectService/ListHistory", READ),
    ("/exeat.v1.ExceptionService/RequestException", READ),
    ("/exeat.v1.ExceptionService/GetRules", READ),
    ("/exeat.v1.ExceptionService/GetCase", READ),
    ("/exeat.v1.ExceptionService/ListCases", READ),
    (
        "/exeat.v1.ExceptionService/Decide",
        &[Role::Admin, Role::Approver],
    ),
    ("/exeat.v1.ExceptionService/GiveUp", READ),
    // Who owns a control or domain comes as a viewer; the command looks closer.
    ("/exeat.v1.ExceptionService/Suspend", READ),
    ("/exeat.v1.ExceptionService/CloseOverride", READ),
    (
        "/exeat.v1.FindingService/RunControl",
        &[Role::Admin, Role::Author, Role::Approver],
    ),
    ("/exeat.v1.FindingService/ListRuns", READ),
    ("/exeat.v1.FindingService/ListFindings", READ),
    // Who answers for a control or subject comes as a viewer; the command looks closer.
    ("/exeat.v1.FindingService/RemedyFinding", READ),
    ("/exeat.v1.FindingService/GetCoverage", READ),
    ("/exeat.v1.ReportService/GetReport", READ),
    ("/exeat.v1.ReportService/ListQueue", READ),
    ("/exeat.v1.ControlService/ProposeControl", WRITE),
    ("/exeat.v1.ControlService/ListProposals", READ),
    // Who decides about a control is its domains' to say.
    (
        "/exeat.v1.ControlService/DecideProposal",
        &[Role::Admin, Role::Approver],
    ),
    ("/exeat.v1.ControlService/WithdrawProposal", WRITE),
    // Who is on call comes as a viewer; the command looks closer.
    ("/exeat.v1.IncidentService/OpenIncident", DECLARE),
    ("/exeat.v1.IncidentService/ResolveIncident", DECLARE),
    ("/exeat.v1.IncidentService/ListIncidents", DECLARE),
    // Owners take back as viewers; the command looks closer.
    ("/exeat.v1.RevocationService/Revoke", READ),
    ("/exeat.v1.RevocationService/Freeze", READ),
    ("/exeat.v1.RevocationService/Thaw", ADMIN),
    ("/exeat.v1.RevocationService/GetRevocation", READ),
    ("/exeat.v1.RevocationService/ListRevocations", READ),
    ("/exeat.v1.FleetService/ListSidecars", READ),
    ("/exeat.v1.FleetService/GetStatus", READ),
    ("/exeat.v1.FleetService/Grant", ADMIN),
    ("/exeat.v1.FleetService/Expel", ADMIN),
    ("/exeat.v1.FleetService/ListGrants", ADMIN),
    ("/exeat.v1.FleetService/ListInstances", READ),
    ("/exeat.v1.LedgerService/GetCheckpoint", READ),
    ("/exeat.v1.LedgerService/ListLeaves", READ),
    ("/exeat.v1.LedgerService/ProveLeaf", READ),
    ("/exeat.v1.LedgerService/ProveExtension", READ),
    ("/exeat.v1.LedgerService/Erase", ADMIN),
    ("/exeat.v1.NotificationService/ListEndpoints", READ),
    ("/exeat.v1.NotificationService/ListDeliveries", READ),
    ("/exeat.v1.NotificationService/Redeliver", ADMIN),
    ("/exeat.v1.NotificationService/TestEndpoint", ADMIN),
    // Everybody may see and end their own.
    ("/exeat.v1.SessionService/GetSession", &Role::ALL),
    ("/exeat.v1.SessionService/EndSession", &Role::ALL),
    ("/exeat.v1.SessionService/ListSessions", ADMIN),
    ("/exeat.v1.SessionService/PutAccount", ADMIN),
    ("/exeat.v1.SessionService/ListAccounts", ADMIN),
    ("/exeat.v1.SessionService/RemoveAccount", ADMIN),
    ("/exeat.v1.SyncService/Watch", FOLLOW),
    ("/exeat.v1.SyncService/Attend", FOLLOW),
    ("/exeat.v1.SyncService/Report", FOLLOW),
    ("/exeat.v1.SyncService/Fetch", FOLLOW),
    ("/exeat.v1.SyncService/Reserve", FOLLOW),
    ("/exeat.v1.UsageService/GetUsage", READ),
    ("/exeat.v1.UsageService/ListUsage", READ),
    ("/exeat.v1.ExplanationService/ExplainDecision", READ),
    ("/exeat.v1.UsageService/ExportUsage", READ),
];

/// Who may make a call; nobody, if it is not in the table.
pub(super) fn may_call(path: &str) -> &'static [Role] {
    CALLS
        .iter()
        .find(|(call, _)| *call == path)
        .map_or(&[], |(_, roles)| roles)
}
