//! Faults planted on purpose, to prove that the simulation finds them. None exists in a build
//! without tests: there [`planted`] is a constant.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A fault that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $($(#[$doc])* $name,)* }

        impl Bug {
            /// Every fault.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it gets wrong.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

bugs! {
    /// The lease runs from when the answer came.
    AnchorAtReceipt = "anchor at receipt instead of at sending",
    /// A heartbeat acts before the events it speaks of.
    HeartbeatAhead = "heartbeat acts before its events",
    /// What is exposed is persisted afterwards.
    FloorAfterExposure = "floor persisted after exposure",
    /// An interval that does not begin where the last one ended is applied.
    GapAccepted = "interval with a gap applied",
    /// An older snapshot replaces a newer one.
    RollbackAccepted = "older snapshot accepted",
    /// Removals are acknowledged before they are durable.
    AckBeforeDurable = "removals acknowledged before they are durable",
    /// Removals are acknowledged while decisions still run on older ones.
    AckBeforeDrained = "removals acknowledged before decisions drained",
    /// A heartbeat nobody asked for counts.
    ReplayAccepted = "heartbeat without its nonce accepted",
    /// An earlier thaw undoes a later freeze.
    ThawByReplay = "earlier thaw undoes a later freeze",
    /// A follower below the compaction floor goes on at the head.
    ResumeAtHead = "resume at head below compaction",
    /// The head is read before the nonce arrived.
    HeadBeforeNonce = "head read before the nonce arrived",
    /// Removals lost by a restore are not given back.
    NoGiveBack = "revocation forgotten on restore",
    /// After a restart the registry takes itself to owe nobody a lease.
    NoGrace = "no grace after a registry restart",
    /// What was answered to a start that another has replaced is not waited out.
    TwinForgotten = "a partitioned twin not waited out",
    /// Age is measured by a clock that stops during suspension.
    SuspendedClock = "lease by a clock that stops during suspension",
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault in this thread, or none.
#[cfg(any(test, feature = "testing"))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether `bug` is planted.
#[cfg(any(test, feature = "testing"))]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether `bug` is planted: never.
#[cfg(not(any(test, feature = "testing")))]
pub const fn planted(_: Bug) -> bool {
    false
}
