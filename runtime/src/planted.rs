//! Bugs planted on purpose, to test the tester: `flotilla-sim prove` chooses one at a time and must find it.
//!
//! Each is a known way to get such a system wrong. Where it would live in the code, the code asks [`planted`]. In a
//! build without debug assertions that is a constant `false`, so nothing of it is left in what users run; with them, the bug that
//! `plant` chose for this thread is there.

macro_rules! bugs {
    ($($name:ident: $what:literal,)*) => {
        /// A bug that may be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $(#[doc = $what] $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What goes wrong, in one sentence.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)*
                }
            }
        }
    };
}

bugs! {
    VoteBeforeSync: "A vote is granted before it is on disk.",
    VoteNotLogged: "A vote is granted and never logged.",
    VotesTwice: "A second candidate gets a vote in the same term.",
    VoteForgotten: "A restart forgets the vote of the current term.",
    TermNotLogged: "A newer term is entered and not logged.",
    OwnVoteEarly: "A candidate counts its own vote before it is on disk.",
    NoUpToDateCheck: "A vote is granted to a candidate whose log is behind.",
    AckBeforeSync: "A follower acknowledges entries before they are on disk.",
    AckBeyondAgreed: "A follower acknowledges entries that don't agree with the leader's.",
    SelfAckEarly: "A leader counts itself before its own sync.",
    OldTermByCounting: "An entry of an older term is committed by counting replicas (Raft, figure 8).",
    NoPrevTermCheck: "An append is taken without a look at the term of the entry before it.",
    CommitBeyondAgreed: "A follower takes the leader's commit index for entries that it hasn't compared.",
    ConflictOffByOne: "After a refused append the leader backs up one entry too little.",
    TruncatesAgreed: "A late append cuts off the entries behind it, though they agree.",
    PersistedAfterTruncation: "What was cut off still counts as durable.",
    StaleReplyCounts: "A follower's answer of an older term counts.",
    NoReadRound: "A leader serves reads without asking whether it still leads.",
    ReadRoundInTheAir: "A read counts answers to a round that was sent before it came.",
    ReadBeforeOwnTerm: "A new leader serves reads before an entry of its own term is committed.",
    ReadBeforeApplied: "A read is served before its index is applied.",
    PipelineOverlap: "A read overtakes a write that the same client sent before it.",
    LeaseTooLong: "A lease lasts three times as long as the promises that it rests on.",
    LeaseDriftIgnored: "A lease takes for granted that all clocks run equally fast.",
    LeaderForgotten: "A follower votes though it has heard of a leader, which counts on it, a moment ago.",
    RepairingVotes: "A replica that lost part of its log votes.",
    RepairingCounts: "The acknowledgements of a replica that lost part of its log count.",
    SyncErrorIgnored: "A failed sync is taken for a good one.",
    SyncSkipped: "A lone write isn't synced.",
    CommitsOutOfOrder: "A group commit counts as durable before the one in front of it.",
    HardStateNotMoved: "A segment is given back without writing its newest terms and votes again.",
    SegmentReusedEarly: "A segment is used again before it is durable that nobody needs it.",
    LiveEntriesDropped: "A segment is given back though entries in it are needed.",
    EpochIgnored: "Recovery takes what a segment held in its former life for new.",
    TornAccepted: "Recovery takes a torn frame for whole.",
    CorruptTakenForTorn: "Recovery cuts off acknowledged frames behind a damaged one.",
    TornTakenForCorrupt: "Recovery takes a torn tail for damage.",
    OlderSnapshotInstalled: "A snapshot older than the state takes its place.",
    SnapshotLabelledOld: "A snapshot says that it is older than it is.",
    RepeatedWriteDone: "A write of a session that is sent again is executed again.",
    SessionsNotInSnapshots: "A snapshot leaves out the sessions.",
    PartsAppliedTwice: "Entries that a shard's part of a snapshot holds are applied to it again.",
    RenamedBeforeSync: "A snapshot gets its name before it is on disk.",
    MarkNotAwaited: "The former snapshot is removed before the mark of the new one is durable.",
    ExpiredByLocalClock: "Keys expire by a replica's own clock.",
    WaiterByIndexOnly: "A waiting writer is answered by the index of its entry, whatever its term.",
    ForksNotSeen: "A command takes another way than one that the same client sent before it, and overtakes it.",
    ReadsAsLeader: "A node that no longer leads serves a read without waiting for what the leader said it must have applied.",
    CopyMissesChanges: "What changes behind the copy of a shard that is served doesn't travel with it.",
    ReadingNotAwaited: "A snapshot comes to a shard that is read for a backup, and freezes it anew.",
    WaitersLost: "Of the writers whose entries are applied together, one is never answered.",
}

/// Whether this bug is here.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is here.
#[cfg(debug_assertions)]
#[inline]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// From now on this thread runs with the bug, or with none.
#[cfg(debug_assertions)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
