//! The command queue (IHI 0069 §5.3): a ring in memory that software fills up to `CWRITER` and the
//! ITS empties up to `CREADR`.
//!
//! Every command has a *sequence number*, counted from the driver's start and never wrapping.
//! Waiters compare sequence numbers rather than ring positions, so they stay correct across any
//! number of wraps and concurrent `CREADR` readers. Between two reads of `CREADR`, the ITS can't
//! advance past the outstanding commands, of which there are always fewer than ring slots.
//!
//! Commands are drawn from the caller's iterator *with the ring's lock held*, so that the lookups
//! and state changes behind a command happen in queue order.

use super::error::{Faults, ProbeError, QueueError};
use super::tables::{Context, ControlFrame, QueueWait, TableConstraints};
use crate::mmio::MmioExt;
use crate::platform::{ADDRESS_BITS, Coherence, GicPlatform, Table, Wait};
use core::ops::Range;
use doorbell_fallible::lock::IrqLock;
use gic_arch::gits::{self, Cbaser, Cwriter};
use gic_arch::its::{COMMAND_BYTES, CollectionId, Command, MapAction, RawCommand, RdBase};
use gic_arch::{Cacheability, OuterCacheability, Shareability};
use msi_types::explain::{Obstacle, TableRegister};

/// The ITS may ignore bits 15:12 of the ring's address.
const ALIGNMENT: u64 = 0x1_0000;
/// `CBASER` size granule.
const PAGE: u32 = 0x1000;

/// Smallest and largest ring, in bytes.
pub(crate) const RING_BYTES: core::ops::RangeInclusive<u32> = 0x1000..=0x10_0000;

/// The ring, with counts of posted and consumed commands. The queue may be used in any context.
#[derive(Debug)]
pub(crate) struct CommandQueue {
    memory: Table,
    coherence: Coherence,
    register: Cbaser,
    slots: u16,
    ring: IrqLock<Ring>,
}

/// State of the ring, protected by its lock.
#[derive(Debug)]
struct Ring {
    state: QueueState,
    /// Commands posted so far, i.e. the sequence number of the next one.
    written: u64,
    /// Commands consumed so far, i.e. the sequence number of the one being executed.
    read: u64,
    write_slot: u16,
    read_slot: u16,
    /// A redistributor for which the ITS has already executed a SYNC.
    verified_target: Option<RdBase>,
    /// Sequence number of the last command that was replaced because the queue had stalled at it.
    replaced: Option<u64>,
    /// Value of `read` when a task's wait timed out: the ITS is unresponsive until `read` advances.
    unresponsive_at: Option<u64>,
    faults: Faults,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum QueueState {
    Stopped,
    Running,
}

/// Range of sequence numbers of one caller's commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CommandSpan(Range<u64>);

impl CommandSpan {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Extends the span to the end of `later`, for a caller whose commands were posted in several
    /// chunks.
    pub(crate) fn extend(&mut self, later: &Self) {
        if self.is_empty() {
            *self = later.clone();
        } else {
            self.0.end = later.0.end.max(self.0.end);
        }
    }
}

/// Result of [`CommandQueue::try_post`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Posted {
    /// The commands that were posted to the ring.
    pub(crate) span: CommandSpan,
    /// Reason why posting stopped.
    pub(crate) ended: PostingEnd,
}

/// Reason why posting stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PostingEnd {
    /// All commands have been posted to the ring.
    Commands,
    /// The ring is full.
    Room,
}

impl CommandQueue {
    /// Allocates a ring of `bytes` (a multiple of 4 KiB within [`RING_BYTES`]) and programs
    /// `CBASER`, negotiating shareability by reading back. The ITS must be disabled and quiescent.
    ///
    /// # Errors
    /// [`ProbeError::NoMemory`] or [`ProbeError::Misplaced`] if the platform has no suitable
    /// memory; [`ProbeError::TableRefused`] if `CBASER` does not accept the ring. On error, all
    /// memory has been freed.
    pub(crate) fn provision<P: GicPlatform>(
        frame: &ControlFrame<P>,
        bytes: u32,
        coherence: Coherence,
        constraints: TableConstraints,
    ) -> Result<Self, ProbeError> {
        const NAME: &str = "command queue";
        let faults =
            Faults::new().map_err(|_| ProbeError::NoMemory { base: frame.base, table: NAME })?;
        let memory = constraints
            .allocate(&*frame.platform, bytes.into(), ALIGNMENT, ADDRESS_BITS)
            .map_err(|error| ProbeError::no_table(frame.base, NAME, error))?;
        let pages = u8::try_from(bytes / PAGE - 1).unwrap_or(u8::MAX);
        let bare =
            Cbaser::new().with_address(memory.address).with_pages_minus_one(pages).with_valid(true);
        let (register, coherence) = program(frame, bare, coherence);
        let accepted = frame.registers.read(gits::CBASER);
        if accepted.address() != memory.address
            || accepted.pages_minus_one() != pages
            || !accepted.valid()
        {
            frame.registers.write(gits::CBASER, Cbaser::new());
            frame.platform.release_table(memory);
            let reason = "GITS_CBASER does not accept its address or size";
            return Err(ProbeError::TableRefused { base: frame.base, table: NAME, reason });
        }
        let slots = u16::try_from(bytes / COMMAND_BYTES).unwrap_or(u16::MAX);
        let ring = Ring {
            state: QueueState::Stopped,
            written: 0,
            read: 0,
            write_slot: 0,
            read_slot: 0,
            verified_target: None,
            replaced: None,
            unresponsive_at: None,
            faults,
        };
        Ok(Self { memory, coherence, register, slots, ring: IrqLock::new(ring) })
    }

    /// Removes the ring from the disabled and quiescent ITS and frees its memory.
    pub(crate) fn release<P: GicPlatform>(&mut self, frame: &ControlFrame<P>) {
        frame.registers.write(gits::CBASER, Cbaser::new());
        frame.platform.release_table(self.memory.take());
    }

    /// Reprograms the queue's registers after the ITS lost them. The ITS must be disabled and
    /// quiescent, and the queue stopped.
    pub(crate) fn restore<P: GicPlatform>(&self, frame: &ControlFrame<P>) {
        frame.registers.write(gits::CBASER, self.register);
    }

    /// Returns an obstacle if `GITS_CBASER` no longer names this queue.
    pub(super) fn obstacle<P: GicPlatform>(&self, frame: &ControlFrame<P>) -> Option<Obstacle> {
        let (value, register) = (frame.registers.read(gits::CBASER), TableRegister::Cbaser);
        if !value.valid() {
            return Some(Obstacle::InvalidTable { register, value: value.into_bits() });
        }
        let (found, expected) = (value.address(), self.register.address());
        (found != expected).then_some(Obstacle::OtherTable { register, found, expected })
    }

    /// Starts the queue at the ITS's current read position, which is 0 after a write of CBASER.
    pub(crate) fn start<P: GicPlatform>(&self, frame: &ControlFrame<P>) {
        let slot = frame.registers.read(gits::CREADR).slot();
        let slot = if slot < self.slots { slot } else { 0 };
        frame.registers.write(gits::CWRITER, Cwriter::new().with_slot(slot));
        self.ring.with(&*frame.platform, |ring| {
            ring.state = QueueState::Running;
            ring.read = ring.written;
            (ring.read_slot, ring.write_slot) = (slot, slot);
        });
    }

    /// Waits until the ring is empty, then stops the queue. Afterwards, the queue accepts no more
    /// commands.
    pub(crate) fn stop<P: GicPlatform>(&self, frame: &ControlFrame<P>) -> Result<(), QueueError> {
        self.poll(frame, &mut QueueWait::new(Context::Task), |ring| {
            let empty = ring.read == ring.written;
            if empty {
                ring.state = QueueState::Stopped;
            }
            empty
        })
    }

    /// Posts all commands and waits until the ITS has consumed them. `CWRITER` is written only once
    /// if all commands fit in the ring, and otherwise once per chunk.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`QueueError::Stalled`] names the first of these commands that the ITS refused; the others
    /// were executed. After [`QueueError::Timeout`], posted commands may still be executed later,
    /// in order, and commands for which the ring had no room are still in the iterator.
    pub(crate) fn run<P: GicPlatform>(
        &self,
        frame: &ControlFrame<P>,
        context: Context,
        commands: &mut dyn Iterator<Item = Command>,
    ) -> Result<(), FailedRun> {
        self.run_raw(frame, context, &mut commands.map(Command::encode))
    }

    /// Posts encoded commands like [`run`](Self::run).
    pub(crate) fn run_raw<P: GicPlatform>(
        &self,
        frame: &ControlFrame<P>,
        context: Context,
        commands: &mut dyn Iterator<Item = RawCommand>,
    ) -> Result<(), FailedRun> {
        let mut wait = QueueWait::new(context);
        let mut all = CommandSpan(0..0);
        loop {
            let posted = self
                .try_post(frame, commands)
                .map_err(|error| FailedRun { error, span: all.clone() })?;
            all.extend(&posted.span);
            let waited = match posted.ended {
                PostingEnd::Commands => self.wait(frame, &mut wait, &all),
                // Wait until half the ring has drained, so a long batch needs few register writes.
                PostingEnd::Room => {
                    self.poll(frame, &mut wait, |ring| self.room(ring) >= self.slots / 2)
                }
            };
            waited.map_err(|error| FailedRun { error, span: all.clone() })?;
            if posted.ended == PostingEnd::Commands {
                return Ok(());
            }
        }
    }

    /// Posts as many commands as fit, without waiting.
    ///
    /// Context: any.
    pub(crate) fn try_post<P: GicPlatform>(
        &self,
        frame: &ControlFrame<P>,
        commands: &mut dyn Iterator<Item = RawCommand>,
    ) -> Result<Posted, QueueError> {
        self.ring.with(&*frame.platform, |ring| {
            if ring.state == QueueState::Stopped {
                return Err(QueueError::Stopped);
            }
            let wanted = commands.size_hint().0.max(1);
            if usize::from(self.room(ring)) < wanted.max(usize::from(self.slots / 2)) {
                self.refresh(frame, ring);
            }
            let (first, first_slot) = (ring.written, ring.write_slot);
            let mut ended = PostingEnd::Room;
            while self.room(ring) > 0 {
                let Some(command) = commands.next() else {
                    ended = PostingEnd::Commands;
                    break;
                };
                self.store(frame, ring.write_slot, command);
                ring.written += 1;
                ring.write_slot = self.next(ring.write_slot);
            }
            if ring.written != first {
                self.publish(frame, first_slot..ring.write_slot);
                frame.registers.write(gits::CWRITER, Cwriter::new().with_slot(ring.write_slot));
            }
            Ok(Posted { span: CommandSpan(first..ring.written), ended })
        })
    }

    /// Returns the number of commands executed, as of the last read of `GITS_CREADR`, and the
    /// number of commands posted.
    pub(super) fn progress<P: GicPlatform>(&self, frame: &ControlFrame<P>) -> (u64, u64) {
        self.ring.with(&*frame.platform, |ring| (ring.read, ring.written))
    }

    /// Runs `f` with the ring's lock held, so that no command is created concurrently.
    pub(crate) fn in_order<P: GicPlatform>(&self, frame: &ControlFrame<P>, f: impl FnOnce()) {
        self.ring.with(&*frame.platform, |_| f());
    }

    /// Records a redistributor for which the ITS has executed a SYNC.
    pub(crate) fn set_verified_target<P: GicPlatform>(
        &self,
        frame: &ControlFrame<P>,
        target: RdBase,
    ) {
        self.ring.with(&*frame.platform, |ring| ring.verified_target = Some(target));
    }

    /// Waits until the ITS has consumed these commands.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Any error of [`run`](Self::run).
    pub(crate) fn wait<P: GicPlatform>(
        &self,
        frame: &ControlFrame<P>,
        wait: &mut QueueWait,
        span: &CommandSpan,
    ) -> Result<(), QueueError> {
        if span.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        self.poll(frame, wait, |ring| {
            let done = ring.read >= span.0.end;
            if done {
                result = ring.faults.take(&span.0);
            }
            done
        })?;
        result
    }

    /// Polls the ring until `done` returns `true` or the wait ends. Releases the lock between
    /// polls.
    fn poll<P: GicPlatform>(
        &self,
        frame: &ControlFrame<P>,
        wait: &mut QueueWait,
        mut done: impl FnMut(&mut Ring) -> bool,
    ) -> Result<(), QueueError> {
        loop {
            let is_done = self.ring.with(&*frame.platform, |ring| {
                if done(ring) {
                    return Ok(true);
                }
                self.refresh(frame, ring);
                if done(ring) {
                    return Ok(true);
                }
                match wait.after(ring.read, &mut ring.unresponsive_at) {
                    Wait::Again => Ok(false),
                    Wait::GiveUp => {
                        let oldest = Command::decode(self.load(frame, ring.read_slot)).ok();
                        Err(QueueError::Timeout(oldest))
                    }
                }
            })?;
            if is_done {
                return Ok(());
            }
            wait.pause(&*frame.platform);
        }
    }

    /// Reads `CREADR` and counts the consumed commands. Restarts the queue if it has stalled.
    fn refresh<P: GicPlatform>(&self, frame: &ControlFrame<P>, ring: &mut Ring) {
        if ring.state == QueueState::Stopped {
            return;
        }
        let creadr = frame.registers.read(gits::CREADR);
        let ahead = self.distance(ring.read_slot, creadr.slot());
        // A read position beyond `CWRITER` is invalid. Do not count it as progress, so that waiters
        // eventually time out.
        if creadr.slot() >= self.slots || u64::from(ahead) > ring.written - ring.read {
            return;
        }
        ring.read += u64::from(ahead);
        ring.read_slot = creadr.slot();
        if creadr.stalled() && ring.read < ring.written {
            self.replace_stalled(frame, ring);
        }
    }

    /// Records the command at which the queue stalled, replaces it with a harmless one and restarts
    /// the queue.
    fn replace_stalled<P: GicPlatform>(&self, frame: &ControlFrame<P>, ring: &mut Ring) {
        if ring.replaced != Some(ring.read) {
            ring.replaced = Some(ring.read);
            ring.faults.push(ring.read, self.load(frame, ring.read_slot));
            let harmless = match ring.verified_target {
                Some(target) => Command::Sync { target },
                // Until the first successful SYNC no collection is mapped, so this command is a
                // no-op.
                None => Command::Mapc {
                    collection: CollectionId::new(0),
                    target: RdBase::from_field(0),
                    action: MapAction::Unmap,
                },
            };
            self.store(frame, ring.read_slot, harmless.encode());
            self.publish(frame, ring.read_slot..self.next(ring.read_slot));
        }
        frame
            .registers
            .write(gits::CWRITER, Cwriter::new().with_slot(ring.write_slot).with_retry(true));
    }

    fn store<P: GicPlatform>(&self, frame: &ControlFrame<P>, slot: u16, command: RawCommand) {
        for (offset, word) in (byte(slot)..).step_by(8).zip(command) {
            frame.platform.store64(&self.memory, offset, word);
        }
    }

    fn load<P: GicPlatform>(&self, frame: &ControlFrame<P>, slot: u16) -> RawCommand {
        let mut bytes = (byte(slot)..).map(|offset| frame.platform.load8(&self.memory, offset));
        core::array::from_fn(|_| {
            u64::from_le_bytes(core::array::from_fn(|_| bytes.next().unwrap_or_default()))
        })
    }

    /// Publishes the slots from `start` up to, but not including, `end`. Wraps around the ring's
    /// end if `end` is not after `start`.
    fn publish<P: GicPlatform>(&self, frame: &ControlFrame<P>, slots: Range<u16>) {
        let publish = |range| frame.platform.publish(&self.memory, range, self.coherence);
        if slots.start < slots.end {
            publish(byte(slots.start)..byte(slots.end));
        } else {
            publish(byte(slots.start)..byte(self.slots));
            if slots.end > 0 {
                publish(0..byte(slots.end));
            }
        }
    }

    /// Returns the number of commands that currently fit in the ring. One slot stays free because a
    /// full ring would be indistinguishable from an empty one.
    fn room(&self, ring: &Ring) -> u16 {
        self.slots - 1 - self.distance(ring.read_slot, ring.write_slot)
    }

    fn distance(&self, from: u16, to: u16) -> u16 {
        if to >= from { to - from } else { to + self.slots - from }
    }

    fn next(&self, slot: u16) -> u16 {
        if slot + 1 == self.slots { 0 } else { slot + 1 }
    }
}

/// Error from [`CommandQueue::run`], and the commands that it posted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FailedRun {
    /// The cause.
    pub(crate) error: QueueError,
    /// The commands that were posted to the ring, if any.
    pub(crate) span: CommandSpan,
}

fn byte(slot: u16) -> u64 {
    u64::from(slot) * u64::from(COMMAND_BYTES)
}

/// Writes `CBASER` with the best attributes that the ITS accepts.
fn program<P: GicPlatform>(
    frame: &ControlFrame<P>,
    bare: Cbaser,
    coherence: Coherence,
) -> (Cbaser, Coherence) {
    if coherence == Coherence::Coherent {
        let cached = bare
            .with_shareability(Shareability::Inner)
            .with_inner_cache(Cacheability::ReadWriteAllocateWriteBack)
            .with_outer_cache(OuterCacheability::SameAsInner);
        frame.registers.write(gits::CBASER, cached);
        if frame.registers.read(gits::CBASER).shareability() != Shareability::Non {
            return (cached, Coherence::Coherent);
        }
    }
    let uncached =
        bare.with_shareability(Shareability::Non).with_inner_cache(Cacheability::NonCacheable);
    frame.registers.write(gits::CBASER, uncached);
    (uncached, Coherence::NonCoherent)
}
