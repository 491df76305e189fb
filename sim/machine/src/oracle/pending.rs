//! The possible pending bits of one vector: messages in flight, messages that have arrived, and the
//! acknowledgments that account for them.

use msi_types::Cpu;
use std::collections::VecDeque;

/// Number of acknowledgments that a [`SharedBit`] remembers. The number exceeds the number of CPUs
/// that can acknowledge one vector at the same time.
const ACKNOWLEDGMENTS: usize = 64;
/// Number of arrivals that a [`SharedBit`] remembers. The number exceeds the number of messages
/// that can wait for a handler.
const ARRIVALS: usize = 1024;

/// An unknown time, later than any other.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// Behavior of a pending bit when its vector moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pending {
    /// The vector has a single pending bit that moves with it.
    Travels,
    /// Each CPU has its own pending bit, which does not move with the vector.
    Stays,
}

/// The reason why a bit is pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// A message from the device. At most one message is in flight.
    Message,
    /// A message that the endpoint holds back until an operation ends.
    Held,
    /// Any number of unrecorded messages, which the device may send until the operation ends.
    Untold,
    /// A resend by the driver or the interrupt core.
    Resend,
}

/// A pending bit that is about to be set.
#[derive(Debug)]
struct UnderWay {
    cause: Cause,
    /// The CPUs at which the interrupt may become pending.
    at: Vec<Cpu>,
    /// The time of the last event before the interrupt was sent.
    began: u64,
    /// The time at which a CPU acknowledged the interrupt, if it did so before the call that sent
    /// the interrupt returned.
    taken: Option<u64>,
}

/// An outside observer's knowledge of a vector's pending bits.
#[derive(Debug)]
pub(super) struct PendingBits {
    under_way: Vec<UnderWay>,
    arrived: Arrived,
}

#[derive(Debug)]
enum Arrived {
    Shared(SharedBit),
    PerCpu(Vec<CpuBit>),
}

impl PendingBits {
    /// Creates the state of a vector that isn't pending at any of `cpus` CPUs.
    pub(super) fn new(pending: Pending, cpus: usize) -> Self {
        let arrived = match pending {
            Pending::Travels => Arrived::Shared(SharedBit::default()),
            Pending::Stays => Arrived::PerCpu(vec![CpuBit::default(); cpus]),
        };
        Self { under_way: Vec::new(), arrived }
    }

    /// Records that a message or resend is in flight since `began`, and may arrive at any of these
    /// CPUs.
    pub(super) fn begin(&mut self, cause: Cause, at: &[Cpu], began: u64) {
        self.under_way.push(UnderWay { cause, at: at.to_vec(), began, taken: None });
    }

    /// Records that `cpu` has become a possible target, so messages in flight may also arrive
    /// there.
    pub(super) fn open(&mut self, cpu: Cpu) {
        for one in self.under_way.iter_mut().filter(|one| one.cause != Cause::Resend) {
            one.at.push(cpu);
        }
    }

    /// Records that the endpoint is holding back the message that was in flight.
    pub(super) fn hold_message(&mut self) {
        let message = self.under_way.iter_mut().find(|one| one.cause == Cause::Message);
        if let Some(message) = message {
            message.cause = Cause::Held;
        }
    }

    /// Records that the device did not send the message that was about to be in flight.
    pub(super) fn cancel_message(&mut self) {
        self.under_way.retain(|one| one.cause != Cause::Message);
    }

    /// Records that, by `now`, everything in flight for any of these causes has arrived.
    pub(super) fn arrive(&mut self, causes: &[Cause], now: u64) {
        while let Some(index) = self.under_way.iter().position(|one| causes.contains(&one.cause)) {
            self.arrive_at(index, now);
        }
    }

    /// Records that, by `now`, a resend to `cpu` has arrived. Does nothing if no resend to `cpu` is
    /// in flight.
    pub(super) fn arrive_resend(&mut self, cpu: Cpu, now: u64) {
        let is_it = |one: &UnderWay| one.cause == Cause::Resend && one.at.contains(&cpu);
        if let Some(index) = self.under_way.iter().position(is_it) {
            self.arrive_at(index, now);
        }
    }

    /// Records that, by `now`, an interrupt in flight has arrived.
    ///
    /// If several interrupts were in flight when a CPU acknowledged one of them, it is unknown
    /// which one. The acknowledgment is attributed to the first of them to arrive: a later arrival
    /// can account for more of the acknowledgments that follow.
    fn arrive_at(&mut self, index: usize, now: u64) {
        let mut one = self.under_way.swap_remove(index);
        if one.taken.is_none() {
            let was_in_flight = |other: &&mut UnderWay| other.taken > Some(one.began);
            let other = self.under_way.iter_mut().find(was_in_flight);
            one.taken = other.and_then(|other| other.taken.take());
        }
        self.arrived.add(&one, now);
    }

    /// Records at time `now` that `cpu`, which started to look for interrupts at `looked_at`,
    /// acknowledged the vector. Returns the earliest time at which the vector may have become
    /// pending, or [`UNKNOWN`]; `None` if the CPU cannot have found the vector pending.
    pub(super) fn acknowledge(&mut self, cpu: Cpu, looked_at: u64, now: u64) -> Option<u64> {
        match &mut self.arrived {
            Arrived::Shared(bit) => bit.take(looked_at, now).or_else(|| {
                self.under_way.iter_mut().find_map(|one| one.take(now).then_some(one.began))
            }),
            Arrived::PerCpu(bits) => {
                let due = bits.get_mut(cpu.index()).is_some_and(|bit| bit.take(looked_at));
                let is_due = due || self.under_way.iter().any(|one| one.at.contains(&cpu));
                is_due.then_some(UNKNOWN)
            }
        }
    }

    /// If each CPU has its own pending bit, records that the bit of `cpu` has been clear since
    /// `now`.
    pub(super) fn empty(&mut self, cpu: Cpu, now: u64) {
        if let Arrived::PerCpu(bits) = &mut self.arrived
            && let Some(bit) = bits.get_mut(cpu.index())
        {
            bit.looked_at = now;
        }
    }
}

impl UnderWay {
    /// Marks the interrupt in flight as acknowledged at `now`. Returns `false` if it already was
    /// acknowledged, because a message becomes pending only once.
    fn take(&mut self, now: u64) -> bool {
        if self.cause == Cause::Untold {
            return true;
        }
        let is_first = self.taken.is_none();
        self.taken.get_or_insert(now);
        is_first
    }
}

impl Arrived {
    fn add(&mut self, one: &UnderWay, now: u64) {
        match self {
            Self::Shared(bit) => bit.add(now, one.taken),
            Self::PerCpu(bits) => {
                for cpu in &one.at {
                    if let Some(bit) = bits.get_mut(cpu.index()) {
                        bit.arrived_at = now;
                    }
                }
            }
        }
    }
}

/// The pending bit of one CPU.
#[derive(Clone, Debug, Default)]
struct CpuBit {
    /// The time of the last arrival at this CPU.
    arrived_at: u64,
    /// The time at which the CPU started to look for the last interrupt that it acknowledged.
    looked_at: u64,
}

impl CpuBit {
    fn take(&mut self, looked_at: u64) -> bool {
        let arrived = self.arrived_at > self.looked_at;
        self.looked_at = looked_at.max(self.looked_at);
        arrived
    }
}

/// A vector's single pending bit, which any CPU may acknowledge.
///
/// An acknowledgment accounts for every message that arrived before the acknowledging CPU started
/// to look for interrupts. The next acknowledgment therefore needs a later arrival, and no two
/// acknowledgments share an arrival. If two acknowledgments overlap in time, their order is
/// unknown: one counts as earlier only if it was recorded before the other CPU started to look for
/// interrupts. Which of the two found which arrival is unknown as well, so each may have found the
/// earlier one.
#[derive(Debug, Default)]
struct SharedBit {
    arrivals: VecDeque<Arrival>,
    acknowledgments: VecDeque<Acknowledgment>,
    /// The time of the last arrival that has been forgotten.
    forgotten_at: u64,
}

#[derive(Debug)]
struct Arrival {
    at: u64,
    /// The time of the acknowledgment that accounts for it.
    taken: Option<u64>,
}

#[derive(Debug)]
struct Acknowledgment {
    noted_at: u64,
    /// The latest time at which a CPU started to look for interrupts, over this acknowledgment and
    /// all earlier ones.
    looked_at: u64,
}

impl SharedBit {
    fn add(&mut self, at: u64, taken: Option<u64>) {
        self.arrivals.push_back(Arrival { at, taken });
        if self.arrivals.len() > ARRIVALS
            && let Some(oldest) = self.arrivals.pop_front()
        {
            self.forgotten_at = oldest.at;
        }
    }

    fn take(&mut self, looked_at: u64, now: u64) -> Option<u64> {
        let earlier = self.acknowledgments.iter().rev().find(|one| one.noted_at <= looked_at);
        let since = earlier.map_or(0, |one| one.looked_at);
        let latest = self.acknowledgments.back().map_or(0, |one| one.looked_at);
        self.acknowledgments
            .push_back(Acknowledgment { noted_at: now, looked_at: looked_at.max(latest) });
        if self.acknowledgments.len() > ACKNOWLEDGMENTS {
            self.acknowledgments.pop_front();
        }
        let mut earliest = UNKNOWN;
        let mut found = None;
        for arrival in self.arrivals.iter_mut().rev().take_while(|arrival| arrival.at > since) {
            if arrival.taken.is_none_or(|taken| taken > looked_at) {
                earliest = arrival.at;
            }
            // Use the earliest possible arrival, so that later arrivals remain for acknowledgments
            // that need them.
            if arrival.taken.is_none() {
                found = Some(arrival);
            }
        }
        match found {
            Some(arrival) => {
                arrival.taken = Some(now);
                Some(earliest)
            }
            None => (since < self.forgotten_at).then_some(UNKNOWN),
        }
    }
}
