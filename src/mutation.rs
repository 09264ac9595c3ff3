//! Mistakes that the simulation can reintroduce, to prove that it finds them. Without the feature `mutations`
//! none is active.

/// A mistake that the engine once made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Mutation {
    SilentConnectionsAreKept,
    SilenceEndsWithAnyByte,
    ParkedRequestsHaveNoDeadline,
    UnwrittenRequestsSpendTheirRetry,
    RedirectionsAreNotCounted,
    AskingErrorsAreIgnored,
    ClusterDownIsRepeatedWithoutBackoff,
    MapsAreAskedForWithoutBackoff,
    ReconnectsAreNotLimited,
    ResentWritesFollowLaterReads,
    ResentWritesFollowLaterWrites,
    TouchesOutliveConnections,
    ExpiryStopsAtTheFirstWaiting,
    EndlessScansAreFollowed,
    LostRequestsAreRepeatedInReverse,
    NodesThatLeftAreKept,
    MarkersAreLeftOut,
}

impl Mutation {
    /// Every one.
    pub const ALL: [Self; 17] = [
        Self::SilentConnectionsAreKept,
        Self::SilenceEndsWithAnyByte,
        Self::ParkedRequestsHaveNoDeadline,
        Self::UnwrittenRequestsSpendTheirRetry,
        Self::RedirectionsAreNotCounted,
        Self::AskingErrorsAreIgnored,
        Self::ClusterDownIsRepeatedWithoutBackoff,
        Self::MapsAreAskedForWithoutBackoff,
        Self::NodesThatLeftAreKept,
        Self::ReconnectsAreNotLimited,
        Self::ResentWritesFollowLaterReads,
        Self::ResentWritesFollowLaterWrites,
        Self::LostRequestsAreRepeatedInReverse,
        Self::ExpiryStopsAtTheFirstWaiting,
        Self::TouchesOutliveConnections,
        Self::EndlessScansAreFollowed,
        Self::MarkersAreLeftOut,
    ];
}

#[cfg(feature = "mutations")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Makes `mutation`, or none, active on this thread.
#[cfg(feature = "mutations")]
pub fn activate(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
}

#[cfg(feature = "mutations")]
pub(crate) fn is_active(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

#[cfg(not(feature = "mutations"))]
pub(crate) const fn is_active(_: Mutation) -> bool {
    false
}
