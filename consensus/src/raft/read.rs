//! Linearizable reads without the log: ReadIndex (thesis §6.4), batched.
//!
//! A read notes the commit index and waits until a majority has answered a heartbeat that left *after* the read
//! came. Rounds are numbered; one is in the air at a time, and everything that arrives meanwhile shares the next.

use super::{Context, Raft, ReadTicket, Refused, Role};

impl Raft {
    /// A linearizable read arrives.
    ///
    /// # Errors
    /// [`Refused::NotLeader`].
    pub fn read(&mut self) -> Result<ReadTicket, Refused> {
        if self.role != Role::Leader {
            return Err(Refused::NotLeader(self.leader()));
        }
        // Alone, we are the majority, and need to ask nobody.
        let alone = self.is_quorum(|place| place == self.me);
        self.round_wanted = if alone { self.round_confirmed } else { self.round_sent + 1 };
        Ok(ReadTicket {
            round: self.round_wanted,
            // Until an entry of our own term is committed we don't know how far the others had come.
            index: self.commit.max(self.term_start),
            position: self.log.last_index(),
            term: self.term,
        })
    }

    /// Leader: every read of a round up to this one is confirmed.
    pub fn confirmed_round(&self) -> u64 {
        self.round_confirmed
    }

    pub(super) fn start_read_round(&mut self, cx: &mut Context<'_>) {
        let in_the_air = self.round_confirmed < self.round_sent;
        if self.round_wanted <= self.round_sent || in_the_air {
            return;
        }
        self.round_sent = self.round_wanted;
        for place in self.group_of.others {
            self.send_heartbeat(cx, place);
        }
        self.confirm_reads();
    }

    pub(super) fn confirm_reads(&mut self) {
        self.progress[self.me].read_round = self.round_sent;
        let confirmed = self.reached(|place| self.progress[place].read_round);
        // Another configuration may have confirmed less: what was confirmed stays so.
        self.round_confirmed = self.round_confirmed.max(confirmed);
    }
}
