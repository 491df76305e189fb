//! The pending bits of one vector, as far as they are known: messages under way, arrivals, and the
//! acknowledgements that took them.

use msi_types::Cpu;
use std::collections::VecDeque;

/// Acknowledgements that a [`SharedBit`] remembers. More than the CPUs that can acknowledge one
/// vector at a time.
const ACKNOWLEDGEMENTS: usize = 64;
/// Arrivals that it remembers: more than can wait for a handler.
const ARRIVALS: usize = 1024;

/// The fate of a pending bit when its vector moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pending {
    /// There is one pending bit: it goes along.
    Travels,
    /// Each CPU has a pending bit, and keeps it.
    Stays,
}

/// The cause of a pending bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// A message of the device. One at a time.
    Message,
    /// A message that the endpoint holds back for the time of an operation.
    Held,
    /// Messages that nobody told of: any number, until the operation is over.
    Untold,
    /// Software that sends it again.
    Resend,
}

/// A pending bit that is about to be set.
#[derive(Debug)]
struct UnderWay {
    cause: Cause,
    /// The CPUs where it may arrive.
    at: Vec<Cpu>,
    /// It was acknowledged before its sender returned.
    is_taken: bool,
}

/// The pending bits of one vector, as far as they can be known from outside.
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
    /// Nothing is pending on any of `cpus` CPUs.
    pub(super) fn new(pending: Pending, cpus: usize) -> Self {
        let arrived = match pending {
            Pending::Travels => Arrived::Shared(SharedBit::default()),
            Pending::Stays => Arrived::PerCpu(vec![CpuBit::default(); cpus]),
        };
        Self { under_way: Vec::new(), arrived }
    }

    /// Something is under way that may arrive at one of these CPUs.
    pub(super) fn begin(&mut self, cause: Cause, at: &[Cpu]) {
        self.under_way.push(UnderWay { cause, at: at.to_vec(), is_taken: false });
    }

    /// `cpu` has become a possible target: messages under way may arrive there, too.
    pub(super) fn open(&mut self, cpu: Cpu) {
        for one in self.under_way.iter_mut().filter(|one| one.cause != Cause::Resend) {
            one.at.push(cpu);
        }
    }

    /// The endpoint holds the message back that was under way.
    pub(super) fn hold_message(&mut self) {
        let message = self.under_way.iter_mut().find(|one| one.cause == Cause::Message);
        if let Some(message) = message {
            message.cause = Cause::Held;
        }
    }

    /// The message was not sent.
    pub(super) fn cancel_message(&mut self) {
        self.under_way.retain(|one| one.cause != Cause::Message);
    }

    /// Everything under way for any of these reasons arrived, at `now`.
    pub(super) fn arrive(&mut self, causes: &[Cause], now: u64) {
        for one in self.under_way.extract_if(.., |one| causes.contains(&one.cause)) {
            self.arrived.add(&one, now);
        }
    }

    /// A resend to `cpu` has arrived, at `now`. Nothing if none is under way there.
    pub(super) fn arrive_resend(&mut self, cpu: Cpu, now: u64) {
        let is_it = |one: &UnderWay| one.cause == Cause::Resend && one.at.contains(&cpu);
        if let Some(index) = self.under_way.iter().position(is_it) {
            let one = self.under_way.swap_remove(index);
            self.arrived.add(&one, now);
        }
    }

    /// `cpu`, which went to look at `looked_at`, acknowledged the vector, as is noted at `now`.
    /// False if nothing can have been pending for it.
    pub(super) fn acknowledge(&mut self, cpu: Cpu, looked_at: u64, now: u64) -> bool {
        match &mut self.arrived {
            Arrived::Shared(bit) => {
                bit.take(looked_at, now) || self.under_way.iter_mut().any(UnderWay::take)
            }
            Arrived::PerCpu(bits) => {
                let due = bits.get_mut(cpu.index()).is_some_and(|bit| bit.take(looked_at));
                due || self.under_way.iter().any(|one| one.at.contains(&cpu))
            }
        }
    }

    /// Nothing is pending at `cpu` since `now`, where CPUs have pending bits of their own.
    pub(super) fn empty(&mut self, cpu: Cpu, now: u64) {
        if let Arrived::PerCpu(bits) = &mut self.arrived
            && let Some(bit) = bits.get_mut(cpu.index())
        {
            bit.looked_at = now;
        }
    }
}

impl UnderWay {
    /// It was acknowledged. False if it was before: a message is pending once.
    fn take(&mut self) -> bool {
        self.cause == Cause::Untold || !std::mem::replace(&mut self.is_taken, true)
    }
}

impl Arrived {
    fn add(&mut self, one: &UnderWay, now: u64) {
        match self {
            Self::Shared(bit) => bit.add(now, one.is_taken),
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

/// A pending bit that a CPU has to itself.
#[derive(Clone, Debug, Default)]
struct CpuBit {
    /// The time of the last arrival here.
    arrived_at: u64,
    /// The time at which the CPU looked for its last acknowledgement.
    looked_at: u64,
}

impl CpuBit {
    fn take(&mut self, looked_at: u64) -> bool {
        let arrived = self.arrived_at > self.looked_at;
        self.looked_at = looked_at.max(self.looked_at);
        arrived
    }
}

/// The one pending bit of a vector, which any CPU may acknowledge.
///
/// An acknowledgement takes everything that arrived before its CPU went to look. So the next one
/// needs an arrival after that, and no two have the same arrival. It cannot be known which of two
/// that overlap in time came first. An acknowledgement counts as earlier only if it was noted
/// before the other CPU went to look.
#[derive(Debug, Default)]
struct SharedBit {
    arrivals: VecDeque<Arrival>,
    acknowledgements: VecDeque<Acknowledgement>,
    /// The time of the last arrival that is not remembered any more.
    forgotten_at: u64,
}

#[derive(Debug)]
struct Arrival {
    at: u64,
    is_taken: bool,
}

#[derive(Debug)]
struct Acknowledgement {
    noted_at: u64,
    /// The latest time at which the CPU of this one, or of an earlier one, looked.
    looked_at: u64,
}

impl SharedBit {
    fn add(&mut self, at: u64, is_taken: bool) {
        self.arrivals.push_back(Arrival { at, is_taken });
        if self.arrivals.len() > ARRIVALS
            && let Some(oldest) = self.arrivals.pop_front()
        {
            self.forgotten_at = oldest.at;
        }
    }

    fn take(&mut self, looked_at: u64, now: u64) -> bool {
        let earlier = self.acknowledgements.iter().rev().find(|one| one.noted_at <= looked_at);
        let since = earlier.map_or(0, |one| one.looked_at);
        let latest = self.acknowledgements.back().map_or(0, |one| one.looked_at);
        self.acknowledgements
            .push_back(Acknowledgement { noted_at: now, looked_at: looked_at.max(latest) });
        if self.acknowledgements.len() > ACKNOWLEDGEMENTS {
            self.acknowledgements.pop_front();
        }
        let recent = self.arrivals.iter_mut().rev().take_while(|arrival| arrival.at > since);
        // The first of them leaves the later ones to acknowledgements that have no other.
        match recent.filter(|arrival| !arrival.is_taken).last() {
            Some(arrival) => {
                arrival.is_taken = true;
                true
            }
            None => since < self.forgotten_at,
        }
    }
}
