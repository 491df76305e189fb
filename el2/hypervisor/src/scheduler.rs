//! Preemptive scheduler of all guests' vCPUs on all CPUs. Guests run in turn.
//!
//! A vCPU that waits for an interrupt keeps its CPU until another vCPU wants one. So with a CPU for
//! each vCPU nothing is switched.
//!
//! While vCPUs are queued, a CPU runs one guest for [`TURN`], then the next guest that has a queued
//! vCPU. The guest's vCPUs share its turn, which they cannot prolong. The turn begins with the vCPU
//! that has been queued longest. A vCPU that is woken preempts the running vCPU of its guest. A
//! vCPU that waits leaves the rest of the turn to the next vCPU of its guest; woken ones run first.
//!
//! | state | ends by |
//! |---|---|
//! | waiting | a kick, or its timer's deadline: queued |
//! | queued | a CPU that takes it from the queue: loaded |
//! | loaded | its guest's turn or a wake-up: queued; WFI, `CPU_OFF`: waiting; its machine: ended |
//!
//! No kick is lost. A kick sets `kicked`, then looks at the state; a vCPU that is to wait sets the
//! state, then looks at `kicked`. A vCPU is queued first, then idle CPUs are looked for; a CPU that
//! is to idle says so, then looks at the queue.
//!
//! A wake-up never preempts the vCPU that it queued, and is not lost either: [`queue`] pushes the
//! vCPU and sets `preempting` in one critical section, [`next`] takes a vCPU and clears
//! `preempting` in one.

use crate::hypervisor_timer::{self, NEVER};
use crate::{irqchip, moving};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use image_rt::cpu::{self, MAX_CPUS};
use msi_types::Cpu;
use spin::{Mutex, Once};

/// Length of a guest's turn on a CPU while other vCPUs are queued, in milliseconds.
const TURN: u64 = 2;

/// The vCPUs of each guest.
static ENTITIES: Once<Box<[Box<[Entity]>]>> = Once::new();
static QUEUE: Mutex<VecDeque<(VcpuId, Queued)>> = Mutex::new(VecDeque::new());
/// Length of the queue. Must be changed under the queue's lock.
static QUEUED_VCPUS: AtomicUsize = AtomicUsize::new(0);
/// CPUs that wait for work, by bit. The first one boots, and takes the first vCPU.
static IDLE: AtomicU32 = AtomicU32::new(1);
static CPUS: [CpuState; MAX_CPUS] = [const { CpuState::new() }; MAX_CPUS];

/// A CPU's task.
struct CpuState {
    /// The vCPU that it has: 0, or 1 more than its packed number.
    loaded: AtomicU32,
    /// The guest whose turn it is.
    guest: AtomicUsize,
    /// End of the turn, or 0 while no other vCPU wants the CPU.
    turn_end: AtomicU64,
    /// Guests that had a vCPU woken for this CPU since it took its own, by
    /// [`VcpuId::guest_bit`]. Set under the queue's lock; cleared under it as the CPU takes a vCPU,
    /// and without it by [`is_turn_over`].
    preempting: AtomicU64,
}

impl CpuState {
    const fn new() -> Self {
        Self {
            loaded: AtomicU32::new(0),
            guest: AtomicUsize::new(0),
            turn_end: AtomicU64::new(0),
            preempting: AtomicU64::new(0),
        }
    }

    fn here() -> &'static Self {
        &CPUS[cpu::current()]
    }
}

/// A vCPU of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VcpuId {
    /// Number of the guest.
    pub(crate) guest: usize,
    pub(crate) cpu: Cpu,
}

impl VcpuId {
    /// Its state here. `None` before [`install`].
    fn entity(self) -> Option<&'static Entity> {
        entities().get(self.guest)?.get(self.cpu.index())
    }

    /// The bit of its guest. A guest after the 64th has none, and its vCPUs never preempt.
    fn guest_bit(self) -> u64 {
        1_u64.checked_shl(self.guest as u32).unwrap_or(0)
    }

    fn pack(self) -> u32 {
        (self.guest as u32) << 16 | self.cpu.get()
    }

    fn unpack(packed: u32) -> Self {
        Self { guest: (packed >> 16) as usize, cpu: Cpu::new(packed & 0xffff) }
    }
}

/// Scheduling state of a vCPU.
#[derive(Debug)]
pub(crate) struct Entity {
    /// One of [`state`].
    state: AtomicU32,
    kicked: AtomicBool,
    /// While it waits: the counter's value when its timer fires.
    deadline: AtomicU64,
    /// The CPU that had it last, and watches the deadline.
    home: AtomicU32,
}

mod state {
    pub(super) const WAITING: u32 = 0;
    pub(super) const QUEUED: u32 = 1;
    pub(super) const ENDED: u32 = 2;
    /// And the CPU's number.
    pub(super) const LOADED: u32 = 3;
}

impl Entity {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(state::WAITING),
            kicked: AtomicBool::new(false),
            deadline: AtomicU64::new(NEVER),
            home: AtomicU32::new(0),
        }
    }

    /// The CPU that has it.
    fn loaded_at(&self) -> Option<Cpu> {
        self.state.load(SeqCst).checked_sub(state::LOADED).map(Cpu::new)
    }

    /// The vCPU is about to look for interrupts before it waits or enters the guest: kicks count
    /// from now on.
    pub(crate) fn forget_kicks(&self) {
        self.kicked.store(false, SeqCst);
    }

    /// Was it kicked since?
    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked.load(SeqCst)
    }
}

/// The reason for which a vCPU leaves its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leave {
    /// Others want it.
    Preempted,
    /// Until a kick, or until the counter has this value.
    Waits { deadline: u64 },
    /// It runs no more.
    Ended,
}

/// Reason why a vCPU is queued. Within a turn, vCPUs run in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Queued {
    Woken,
    Preempted,
}

/// Makes the vCPUs known: their number for each guest. Kicks before this have no effect.
pub(crate) fn install(vcpus: impl Iterator<Item = usize>) {
    let of_guest = |count| (0..count).map(|_| Entity::new()).collect();
    ENTITIES.call_once(|| vcpus.map(of_guest).collect());
}

fn entities() -> &'static [Box<[Entity]>] {
    ENTITIES.get().map_or(&[], |entities| entities)
}

/// Returns the number of all guests' vCPUs.
pub(crate) fn vcpus() -> usize {
    entities().iter().map(|entities| entities.len()).sum()
}

/// Waits for an interrupt, unless a vCPU is queued.
pub(crate) fn idle() {
    let bit = 1 << cpu::current();
    IDLE.fetch_or(bit, SeqCst);
    if !is_wanted() {
        cpu::wait_for_interrupt();
    }
    IDLE.fetch_and(!bit, SeqCst);
}

/// Dequeues a vCPU of the guest whose turn it is, or else of the next guest in turn.
pub(crate) fn next() -> Option<(VcpuId, &'static Entity)> {
    let here = CpuState::here();
    let (last, turn_end) = (here.guest.load(SeqCst), here.turn_end.load(SeqCst));
    let is_over = (1..=cpu::ticks()).contains(&turn_end);
    let guests = entities().len();
    let order = |(id, why): (VcpuId, Queued)| {
        let turns = (id.guest + guests - last - usize::from(is_over)) % guests;
        (turns, (turns == 0 && !is_over).then_some(why))
    };
    let mut queue = QUEUE.lock();
    let (index, _) = queue.iter().enumerate().min_by_key(|(_, queued)| order(**queued))?;
    let (id, _) = queue.remove(index)?;
    QUEUED_VCPUS.store(queue.len(), SeqCst);
    here.preempting.store(0, SeqCst);
    drop(queue);
    if is_over || id.guest != last {
        here.guest.store(id.guest, SeqCst);
        here.turn_end.store(0, SeqCst);
    }
    let entity = id.entity()?;
    entity.state.store(state::LOADED + cpu::current() as u32, SeqCst);
    here.loaded.store(id.pack() + 1, SeqCst);
    Some((id, entity))
}

/// The vCPU that this CPU has.
pub(crate) fn loaded() -> Option<VcpuId> {
    CpuState::here().loaded.load(SeqCst).checked_sub(1).map(VcpuId::unpack)
}

/// The CPU that has a vCPU.
pub(crate) fn loaded_at(id: VcpuId) -> Option<Cpu> {
    id.entity()?.loaded_at()
}

/// Makes a vCPU leave its guest, or lets one that waits run. One that this CPU has looks at
/// `kicked` by itself before it enters the guest or waits.
pub(crate) fn kick(id: VcpuId) {
    let Some(entity) = id.entity() else { return };
    entity.kicked.store(true, SeqCst);
    match entity.loaded_at() {
        Some(cpu) if cpu.index() == cpu::current() => {}
        Some(cpu) => irqchip::kick(cpu),
        None => wake(id, entity),
    }
}

/// Queues a vCPU if it waits.
fn wake(id: VcpuId, entity: &Entity) {
    let (from, to) = (state::WAITING, state::QUEUED);
    if entity.state.compare_exchange(from, to, SeqCst, SeqCst).is_ok() {
        queue(id, entity, Queued::Woken);
    }
}

/// Queues a vCPU and kicks a CPU for it: an idle one, or else the one where the vCPU ran last,
/// whose current vCPU then calls [`is_turn_over`].
fn queue(id: VcpuId, entity: &Entity, why: Queued) {
    let mut queue = QUEUE.lock();
    queue.push_back((id, why));
    QUEUED_VCPUS.store(queue.len(), SeqCst);
    let (idle, home) = (IDLE.load(SeqCst), entity.home.load(SeqCst));
    let cpu = if idle == 0 || idle & 1 << home != 0 { home } else { idle.trailing_zeros() };
    IDLE.fetch_and(!(1 << cpu), SeqCst);
    if why == Queued::Woken {
        CPUS[cpu as usize].preempting.fetch_or(id.guest_bit(), SeqCst);
    }
    drop(queue);
    if cpu != cpu::current() as u32 {
        irqchip::kick(Cpu::new(cpu));
    } else if let Some(running) = loaded().and_then(VcpuId::entity) {
        running.kicked.store(true, SeqCst);
    }
}

/// The vCPU has left the CPU that executes this.
pub(crate) fn leave(id: VcpuId, why: Leave) {
    let here = CpuState::here();
    here.loaded.store(0, SeqCst);
    let Some(entity) = id.entity() else { return };
    entity.home.store(cpu::current() as u32, SeqCst);
    match why {
        Leave::Preempted => {
            entity.state.store(state::QUEUED, SeqCst);
            queue(id, entity, Queued::Preempted);
        }
        Leave::Waits { deadline } => {
            entity.deadline.store(deadline, SeqCst);
            entity.state.store(state::WAITING, SeqCst);
            if entity.is_kicked() {
                wake(id, entity);
            }
            set_timer();
        }
        Leave::Ended => entity.state.store(state::ENDED, SeqCst),
    }
}

/// Does another vCPU wait for a CPU, or must all CPUs stand still?
pub(crate) fn is_wanted() -> bool {
    QUEUED_VCPUS.load(SeqCst) != 0 || moving::is_wanted()
}

/// Returns true if the vCPU of this CPU must let others run. Its guest's turn begins with the first
/// call that finds others waiting.
pub(crate) fn is_turn_over() -> bool {
    let here = CpuState::here();
    // Must precede `is_wanted`: `queue` counts the vCPU before it sets the bit.
    let preempting = here.preempting.swap(0, SeqCst);
    if !is_wanted() {
        here.turn_end.store(0, SeqCst);
        return false;
    }
    if here.turn_end.load(SeqCst) == 0 {
        here.turn_end.store(cpu::ticks() + TURN * cpu::ticks_per_millisecond(), SeqCst);
        set_timer();
    }
    let is_preempted = loaded().is_some_and(|id| preempting & id.guest_bit() != 0);
    let is_over = is_preempted || moving::is_wanted() || cpu::ticks() >= here.turn_end.load(SeqCst);
    if !is_over {
        wake_idle();
    }
    is_over
}

/// Wakes an idle CPU for queued vCPUs. The idle CPU that [`queue`] chose may keep the vCPU that it
/// has instead, because that vCPU's own interrupt came at the same time.
fn wake_idle() {
    let idle = IDLE.load(SeqCst);
    if idle != 0 {
        let cpu = idle.trailing_zeros();
        IDLE.fetch_and(!(1 << cpu), SeqCst);
        irqchip::kick(Cpu::new(cpu));
    }
}

/// The CPU's timer fired: vCPUs whose deadline has passed run again.
pub(crate) fn on_timer() {
    let now = cpu::ticks();
    for (id, entity) in waiting_here() {
        if entity.deadline.load(SeqCst) <= now {
            wake(id, entity);
        }
    }
    moving::on_timer();
    set_timer();
}

/// Sets this CPU's timer to the next end or deadline.
pub(crate) fn set_timer() {
    let deadlines = waiting_here().map(|(_, entity)| entity.deadline.load(SeqCst));
    let end = CpuState::here().turn_end.load(SeqCst);
    let end = if end > cpu::ticks() { end } else { NEVER };
    hypervisor_timer::set(deadlines.fold(end.min(moving::deadline()), u64::min));
}

/// vCPUs that wait, and whose deadlines this CPU watches.
fn waiting_here() -> impl Iterator<Item = (VcpuId, &'static Entity)> {
    let here = cpu::current() as u32;
    let all = entities().iter().enumerate().flat_map(|(guest, it)| {
        let entities = (0..).map(Cpu::new).zip(it);
        entities.map(move |(cpu, entity)| (VcpuId { guest, cpu }, entity))
    });
    all.filter(move |(_, entity)| {
        entity.state.load(SeqCst) == state::WAITING && entity.home.load(SeqCst) == here
    })
}
