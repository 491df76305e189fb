//! Preemptive scheduler for the vCPUs of all guests on all CPUs. Guests run round-robin.
//!
//! A vCPU that waits for an interrupt keeps its CPU until another vCPU needs one. So if each vCPU
//! has its own CPU, vCPUs are never switched.
//!
//! While vCPUs are queued, a CPU runs one guest for a time slice (its turn, [`TURN`]), and then the
//! next guest that has a queued vCPU. The guest's vCPUs share its time slice and can't extend it. A
//! time slice begins with the vCPU that has been queued longest. A woken vCPU preempts the running
//! vCPU of its guest. A vCPU that waits leaves the rest of the time slice to the next vCPU of its
//! guest; woken vCPUs run first.
//!
//! | state | transitions |
//! |---|---|
//! | waiting | to queued: on a kick, or at its timer's deadline |
//! | queued | to loaded: when a CPU takes it from the queue |
//! | loaded | to queued: at the end of its guest's turn, or when preempted by a wake-up; to waiting: on WFI or `CPU_OFF`; to ended: with its machine |
//!
//! Kicks cannot be lost. A kick sets `kicked` and then checks the state; a vCPU that is about to
//! wait sets the state and then checks `kicked`. Queueing works the same way: we queue a vCPU
//! before we look for idle CPUs, and a CPU that is about to idle marks itself idle before it checks
//! the queue.
//!
//! A wake-up never preempts the vCPU that it queued, and cannot be lost either: [`queue`] pushes
//! the vCPU and sets `preempting` in one critical section, and [`next`] takes a vCPU and clears
//! `preempting` in another.

use crate::{hypervisor_timer, irqchip, moving};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use el2_cpu::NEVER;
use image_rt::cpu::{self, MAX_CPUS};
use msi_types::Cpu;
use spin::{Mutex, Once};

/// Length of a guest's time slice on a CPU while other vCPUs are queued, in milliseconds.
const TURN: u64 = 2;

/// Scheduling state of each guest's vCPUs.
static ENTITIES: Once<Box<[Box<[Entity]>]>> = Once::new();
static QUEUE: Mutex<VecDeque<(VcpuId, Queued)>> = Mutex::new(VecDeque::new());
/// Length of the queue. Must only be changed while holding the queue's lock.
static QUEUED_VCPUS: AtomicUsize = AtomicUsize::new(0);
/// Bitmap of CPUs that wait for work. Initially, this is the first CPU, which runs the first vCPU.
static IDLE: AtomicU32 = AtomicU32::new(1);
static CPUS: [CpuState; MAX_CPUS] = [const { CpuState::new() }; MAX_CPUS];

/// A CPU's scheduling state.
struct CpuState {
    /// Packed number of the loaded vCPU plus 1, or 0 if no vCPU is loaded.
    loaded: AtomicU32,
    /// Guest whose vCPUs this CPU currently runs.
    guest: AtomicUsize,
    /// End of the time slice, or 0 while no other vCPU needs the CPU.
    turn_end: AtomicU64,
    /// Guests for which a vCPU was woken on this CPU since it took its current vCPU, as a bitmap of
    /// [`VcpuId::guest_bit`]. Other CPUs set a bit only while holding the queue's lock. The CPU
    /// clears all bits with the lock held when it takes a vCPU; [`is_turn_over`] and
    /// [`is_contended`] clear bits without the lock.
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

/// Identifies a vCPU of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VcpuId {
    /// Number of the guest.
    pub(crate) guest: usize,
    pub(crate) cpu: Cpu,
}

impl VcpuId {
    /// Returns the vCPU's scheduling state, or `None` before [`install`].
    fn entity(self) -> Option<&'static Entity> {
        entities().get(self.guest)?.get(self.cpu.index())
    }

    /// Returns the guest's bit. Guests after the 64th have no bit, so their vCPUs never preempt.
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

/// A vCPU's scheduling state.
#[derive(Debug)]
pub(crate) struct Entity {
    /// State of the vCPU, with a value from [`state`].
    state: AtomicU32,
    kicked: AtomicBool,
    /// Counter value at which the vCPU's timer fires while the vCPU waits.
    deadline: AtomicU64,
    /// CPU on which the vCPU was last loaded, and whose timer is set to the vCPU's deadline.
    home: AtomicU32,
}

mod state {
    pub(super) const WAITING: u32 = 0;
    pub(super) const QUEUED: u32 = 1;
    pub(super) const ENDED: u32 = 2;
    /// The vCPU is loaded; the CPU's number is added to this value.
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

    /// Returns the CPU on which the vCPU is loaded.
    fn loaded_at(&self) -> Option<Cpu> {
        self.state.load(SeqCst).checked_sub(state::LOADED).map(Cpu::new)
    }

    /// Clears `kicked`. Must be called before the vCPU checks for interrupts in order to wait or to
    /// enter the guest, so that later kicks are not lost.
    pub(crate) fn forget_kicks(&self) {
        self.kicked.store(false, SeqCst);
    }

    /// Returns `true` if the vCPU was kicked since [`forget_kicks`](Self::forget_kicks).
    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked.load(SeqCst)
    }
}

/// Reason why a vCPU leaves its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leave {
    /// Another vCPU needs the CPU.
    Preempted,
    /// The vCPU waits for a kick, or until the counter reaches this value.
    Waits { deadline: u64 },
    /// The vCPU no longer runs.
    Ended,
}

/// Reason for queueing a vCPU. Within a time slice, vCPUs run in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Queued {
    Woken,
    Preempted,
}

/// Creates the entities, given the number of vCPUs of each guest. Earlier kicks have no effect.
pub(crate) fn install(vcpus: impl Iterator<Item = usize>) {
    let of_guest = |count| (0..count).map(|_| Entity::new()).collect();
    ENTITIES.call_once(|| vcpus.map(of_guest).collect());
}

fn entities() -> &'static [Box<[Entity]>] {
    ENTITIES.get().map_or(&[], |entities| entities)
}

/// Returns the number of vCPUs of all guests.
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

/// Dequeues a vCPU of the guest that has the time slice, or of the next guest with a queued vCPU.
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

/// Returns the vCPU that is loaded on this CPU.
pub(crate) fn loaded() -> Option<VcpuId> {
    CpuState::here().loaded.load(SeqCst).checked_sub(1).map(VcpuId::unpack)
}

/// Returns the CPU on which a vCPU is loaded.
pub(crate) fn loaded_at(id: VcpuId) -> Option<Cpu> {
    id.entity()?.loaded_at()
}

/// Makes a vCPU leave guest mode, or run if it waits. A vCPU that is loaded on the calling CPU
/// checks `kicked` itself before it enters the guest or waits.
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

/// Queues a vCPU, and kicks a CPU for it: an idle one, or else the one where the vCPU last ran. The
/// vCPU running there then calls [`is_turn_over`].
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

/// Unloads a vCPU from the calling CPU.
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

/// Returns `true` if a vCPU is queued for a CPU, or if all CPUs must pause for a move.
pub(crate) fn is_wanted() -> bool {
    QUEUED_VCPUS.load(SeqCst) != 0 || moving::is_wanted()
}

/// Returns `true` if the CPU [is wanted](is_wanted). Otherwise, neither a time slice nor an earlier
/// wake-up matters here any more.
pub(crate) fn is_contended() -> bool {
    let here = CpuState::here();
    let is_preempting = here.preempting.load(SeqCst) != 0;
    // Must precede `is_wanted`, as in `is_turn_over`.
    let preempting = if is_preempting { here.preempting.swap(0, SeqCst) } else { 0 };
    if !is_wanted() {
        here.turn_end.store(0, SeqCst);
        return false;
    }
    if is_preempting {
        here.preempting.fetch_or(preempting, SeqCst);
    }
    true
}

/// Returns `true` if this CPU's vCPU must let other vCPUs run. The time slice of the vCPU's guest
/// begins with the first call that finds other vCPUs queued.
#[inline]
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

/// Wakes an idle CPU for queued vCPUs. This is needed because the idle CPU that [`queue`] chose may
/// keep its loaded vCPU instead, if an interrupt for that vCPU arrived at the same time.
fn wake_idle() {
    let idle = IDLE.load(SeqCst);
    if idle != 0 {
        let cpu = idle.trailing_zeros();
        IDLE.fetch_and(!(1 << cpu), SeqCst);
        irqchip::kick(Cpu::new(cpu));
    }
}

/// Handles this CPU's timer: queues vCPUs whose deadlines have passed.
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

/// Sets this CPU's timer to the end of the time slice or to the next deadline.
pub(crate) fn set_timer() {
    let deadlines = waiting_here().map(|(_, entity)| entity.deadline.load(SeqCst));
    let end = CpuState::here().turn_end.load(SeqCst);
    let end = if end > cpu::ticks() { end } else { NEVER };
    let end = end.min(moving::deadline()).min(hypervisor_timer::poll());
    hypervisor_timer::set(deadlines.fold(end, u64::min));
}

/// Returns the waiting vCPUs whose deadlines this CPU watches.
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
