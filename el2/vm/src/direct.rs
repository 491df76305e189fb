//! Direct injection (GICv4.0; option `direct`): the redistributor signals a device's message to the
//! guest without an exit, because its event is mapped to a virtual LPI of a vPE ([`VpeSet`]).
//!
//! It serves each guest with an ITS, as long as the machine has free vPEs. A vCPU's vPE is resident
//! while the vCPU is loaded, if the vCPU is the target of direct events. A vCPU that is off or
//! preempted finds its virtual LPIs when it is loaded again. A vCPU whose WFI exits, because vCPUs
//! share CPUs, or that calls `CPU_SUSPEND`, leaves its vPE not resident while it waits, even if it
//! stays loaded: virtual LPIs do not wake a CPU at EL2. Its doorbell wakes it instead.
//!
//! | the guest | effect |
//! |---|---|
//! | unmasks a vector (MSI-X), or enables messages (MSI) | its event is handed over when the guest's ITS translates it; then the function may send |
//! | masks a vector | the function's vector is masked; the event stays direct |
//! | MAPTI, MAPI | hands the event over if it was direct or its vector is unmasked; a direct event whose LPI changes is taken back first |
//! | MOVI, MAPC | moves the event with its pending state (VMOVI) |
//! | INV, INVALL | copies the configuration, and invalidates it (INV) |
//! | INT | the same command for the direct event, instead of the model |
//! | CLEAR | the same command for the direct event, and for the model |
//! | DISCARD, MAPD | takes the event back; its function keeps messages until the event is mapped again |
//! | MOVALL, MAPC with V = 0, a write to `GITS_CTLR` or `GICR_CTLR`; a move of the guest | takes all events back first, makes them pending in the model, and then hands them over again |
//!
//! While an event is handed over or taken back, and while the guest's ITS does not translate it,
//! its vector is masked. If its LPI is pending in the model, the model forgets that, and INT makes
//! the virtual LPI pending instead. So no message is lost. GICv4.0 does not tell whether a virtual
//! LPI is pending, so an event that is taken back counts as pending: the guest may take a
//! superfluous interrupt. Likewise, an MSI cannot be masked, so it is signaled once after it was
//! handed over, because a message may have been lost.
//!
//! When a guest has ended, its vPEs are unmapped and their tables freed.
//!
//! Locks: the model's locks are outside of [`VECTORS`]. Code that holds `VECTORS` may only signal
//! messages to the model, and kick vCPUs. Entries of [`INJECTIONS`] are only locked to copy or to
//! remove them; loading and unloading a vCPU takes its own copy.

mod vector;

pub use vector::GuestVector;

use crate::guest::{self, Guest};
use crate::injection::{HAS_FAILED, Injection};
use crate::irqchip;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use doorbell_facts::{Fact, HypervisorFact};
use gic_arch::its::{Command, MapAction};
use gic_arch::{IntId, Lpi, gits};
use gic_bringup::MsiController;
use gic_driver::ItsError;
use gic_driver::its::{Its, VpeSet};
use image_rt::lock::IrqMutex;
use image_rt::platform::Kernel;
use image_rt::println;
use msi_types::{Cpu, DeviceId, EventId, MessageStore, Pending};
use spin::Once;
use vector::{Vector, kick, report_first, signal};
use vgic::its::ItsConfig;
use vgic::{DirectInjection, DirectTarget, InListRegister, Translate, Vgic};

/// For each guest, its injection, or `None` if its messages pass through the hypervisor, or if it
/// has ended.
static INJECTIONS: Once<Box<[IrqMutex<Entry>]>> = Once::new();
type Entry = Option<Arc<Injection>>;
/// Vectors of each guest's functions.
static VECTORS: [IrqMutex<Vec<Vector>>; MAX_VPES as usize] =
    [const { IrqMutex::new(Vec::new()) }; MAX_VPES as usize];
/// `true` if the option is set.
static IS_WANTED: AtomicBool = AtomicBool::new(false);
/// Number of CPUs that are targets of the ITS, apart from the first.
static ONLINE: AtomicU32 = AtomicU32::new(0);
/// Number of vPEs for which the ITSes have room.
pub(crate) const MAX_VPES: u16 = 64;
/// Maximum number of direct events of a guest. All are followed during one exit.
const MAX_EVENTS: usize = 32;
/// Maximum number of attempts to follow an event that the guest moves at the same time.
const ATTEMPTS: u32 = 8;

/// Returns a guest's injection.
fn of(guest: usize) -> Option<Arc<Injection>> {
    INJECTIONS.get()?.get(guest)?.with(|injection| injection.clone())
}

/// Returns the vectors of a guest into which messages are injected directly.
fn vectors_of(guest: usize) -> &'static IrqMutex<Vec<Vector>> {
    &VECTORS[guest]
}

/// Records that the option is set.
pub(crate) fn want() {
    IS_WANTED.store(true, SeqCst);
}

/// Returns `true` if the option is set.
pub fn is_wanted() -> bool {
    IS_WANTED.load(SeqCst)
}

/// Returns `true` if messages are injected directly into any guest.
#[inline]
pub fn is_on() -> bool {
    INJECTIONS.get().is_some()
}

/// Adds a vector of a device of the guest with the number `owner`. The vector has this slot in the
/// device's message store and is a physical LPI.
pub fn add(
    guest: Box<dyn GuestVector>,
    (owner, device): (usize, DeviceId),
    (store, slot): (Arc<dyn MessageStore>, u16),
    physical: Lpi,
) {
    let (event, direct, has_sent, is_open) = (None, None, false, true);
    let vector =
        Vector { owner, guest, device, store, slot, physical, event, is_open, has_sent, direct };
    // Further guests have no vPEs.
    if let Some(vectors) = VECTORS.get(owner) {
        vectors.with(|vectors| vectors.push(vector));
    }
}

/// Records that the calling CPU is a target of the ITS.
pub(crate) fn note_cpu() {
    ONLINE.fetch_add(1, SeqCst);
}

/// Starts direct injection for each guest, or prints why it is not possible. Messages then reach
/// the guest through the hypervisor. Must be called before the guests run, while the other CPUs
/// start.
pub(crate) fn start(cpus: u32) {
    while ONLINE.load(SeqCst) + 1 < cpus {
        core::hint::spin_loop();
    }
    let its = irqchip::get().controllers().find_map(|(_, driver)| match driver {
        MsiController::Its(its) => Some(its.clone()),
        _ => None,
    });
    let injections = guest::guests().iter().map(|guest| {
        let (injection, fact) = match Injection::new(guest, its.clone(), cpus) {
            Ok(injection) => {
                let vpes = guest.vgic().config().cpus.len();
                (Some(injection), HypervisorFact::Direct { guest: guest.number, vpes })
            }
            Err(reason) => {
                (None, HypervisorFact::NotDirect { guest: guest.number, reason: reason.into() })
            }
        };
        println!("{}", Fact::from(fact));
        injection
    });
    let injections: Vec<_> = injections.collect();
    if injections.iter().any(Option::is_some) {
        let injections = injections.into_iter().map(|it| IrqMutex::new(it.map(Arc::new)));
        INJECTIONS.call_once(|| injections.collect());
        guest::guests().iter().for_each(attach);
    }
}

impl Injection {
    /// Maps the guest's vPEs. Returns the reason if this is not possible.
    fn new(guest: &Guest, its: Option<Arc<Its<Kernel>>>, cpus: u32) -> Result<Self, String> {
        let its = its.ok_or("the machine has no ITS")?;
        let config = guest.vgic().config();
        if config.its.is_empty() {
            return Err("the guest has no ITS".into());
        }
        if guest.number >= VECTORS.len() {
            return Err("too many guests precede it".into());
        }
        let homes: Vec<_> = (0..config.cpus.len() as u32).map(|it| Cpu::new(it % cpus)).collect();
        let id_bits = its.lpis().id_bits();
        // The guest's devices are on PCI buses with lower numbers.
        let proxy = DeviceId::new(u32::MAX >> (32 - its.typer().device_id_bits()));
        let vpes = VpeSet::new(its, id_bits, &homes).and_then(|vpes| vpes.with_doorbells(proxy));
        let vpes = vpes.map_err(|error| error.to_string())?;
        Ok(Self { vpes, suspensions: AtomicU32::new(0) })
    }
}

/// Follows the guest's current GIC, if messages are injected directly.
fn attach(guest: &Guest) {
    if let Some(injection) = of(guest.number) {
        guest.inject_by(Some(&injection));
        let follower = Follower { guest: guest.number, injection: Arc::downgrade(&injection) };
        let set = guest.vgic().inject_directly(0, Arc::new(follower));
        set.expect("nothing follows a new GIC, which has an ITS");
    }
}

/// Frees the vPEs of a guest that has ended, and of which no vCPU is loaded.
pub(crate) fn end(guest: &Guest) {
    let injection = INJECTIONS.get().and_then(|all| all.get(guest.number)?.with(Option::take));
    if let Some(injection) = injection {
        guest.inject_by(None);
        vectors_of(guest.number).with(|vectors| {
            for vector in vectors {
                vector.is_open = false;
                vector.take_back(&injection);
            }
        });
    }
}

/// Loads the vPE of a vCPU that is being loaded on the calling CPU.
#[inline]
pub(crate) fn load(injection: Option<&Injection>, vcpu: Cpu) {
    reside(injection, |vpes| vpes.load(vcpu.get() as u16, irqchip::here()));
}

/// Makes the vPE of a vCPU that is being unloaded leave the calling CPU.
#[inline]
pub(crate) fn put(injection: Option<&Injection>, vcpu: Cpu) {
    reside(injection, |vpes| vpes.put(vcpu.get() as u16).map(|_| ()));
}

/// Makes the vPE of a vCPU that waits for an interrupt leave the calling CPU. The vCPU must be
/// [loaded](load) again before it is entered, and is kicked if a virtual LPI becomes pending.
#[inline]
pub(crate) fn wait(injection: Option<&Injection>, vcpu: Cpu) {
    reside(injection, |vpes| vpes.put_to_wait(vcpu.get() as u16));
}

/// Returns `true` if a virtual LPI may have become pending since the vCPU [waits](wait).
#[inline]
pub(crate) fn may_be_pending(injection: Option<&Injection>, vcpu: Cpu) -> bool {
    let injection = injection.filter(|_| !HAS_FAILED.load(SeqCst));
    injection.is_some_and(|injection| injection.vpes.may_be_pending(vcpu.get() as u16))
}

/// Handles an interrupt that has no handler. If it is a doorbell, wakes the vCPU.
#[cold]
pub(crate) fn ring(intid: IntId) {
    let Ok(lpi) = Lpi::try_from(intid) else { return };
    let rung = |guest| Some((guest, of(guest)?.vpes.ring(lpi)?));
    if let Some((guest, vpe)) = (0..guest::guests().len()).find_map(rung) {
        kick(guest, Cpu::new(vpe.into()));
    }
}

/// Changes a vPE's residency. If this fails, no event is direct any more.
#[inline]
fn reside(
    injection: Option<&Injection>,
    change: impl FnOnce(&VpeSet<Kernel>) -> Result<(), ItsError>,
) {
    let Some(injection) = injection.filter(|_| !HAS_FAILED.load(SeqCst)) else { return };
    if let Err(error) = change(&injection.vpes) {
        fail(&error);
    }
}

/// Ends direct injection into all guests.
#[cold]
#[inline(never)]
fn fail(error: &ItsError) {
    if !HAS_FAILED.swap(true, SeqCst) {
        println!("hypervisor: direct injection ends: {error}");
        for guest in guest::guests() {
            if let Some(injection) = of(guest.number) {
                take_all_back(guest.number, &injection);
            }
        }
        for vectors in &VECTORS {
            vectors.with(|vectors| vectors.iter_mut().for_each(Vector::unmask));
        }
    }
}

/// Takes all events of a guest back, and makes them pending in the model.
fn take_all_back(guest: usize, injection: &Injection) {
    vectors_of(guest)
        .with(|vectors| vectors.iter_mut().for_each(|vector| vector.give_up(injection, false)));
}

/// Follows the guest's changes of a function's messages. Must be called before the function may
/// send.
pub fn follow_messages(owner: usize, device: DeviceId) {
    let (Some(injection), Some(guest)) = (of(owner), guest::guests().get(owner)) else { return };
    let Some(doorbell) = guest.vgic().config().its.first().map(ItsConfig::doorbell) else {
        return;
    };
    let vectors = vectors_of(owner);
    let is_followed = |vector: &&Vector| vector.event.is_some();
    let (count, mut events) =
        vectors.with(|vectors| (vectors.len(), vectors.iter().filter(is_followed).count()));
    for index in 0..count {
        let event = vectors.with(|vectors| {
            let vector = vectors.get_mut(index).filter(|vector| vector.device == device)?;
            let was_followed = vector.event.is_some();
            let event = vector.follow_mask(&injection, doorbell, events < MAX_EVENTS);
            events += usize::from(!was_followed && vector.event.is_some());
            event
        });
        if let Some(event) = event {
            follow_event(&injection, guest, index, (device, event));
        }
    }
}

/// Applies the translation of a vector's event, which another vCPU may change at the same time:
/// [`Follower`] then applies the new one, perhaps before the old one is applied here. If another
/// vCPU gives the vector another event, it applies that one.
fn follow_event(
    injection: &Injection,
    guest: &Guest,
    index: usize,
    (device, event): (DeviceId, EventId),
) {
    let vectors = vectors_of(guest.number);
    // Without a hand-over, pending state stays in the model.
    let look_up = || if injection.may_hand_over() { look_up(guest, device, event) } else { None };
    let mut target = look_up();
    let is_settled = (0..ATTEMPTS).any(|_| {
        vectors.with(|vectors| {
            let is_its = |vector: &&mut Vector| vector.event == Some(event);
            match vectors.get_mut(index).filter(is_its) {
                Some(vector) => vector.apply(injection, target),
                None if target.is_some_and(|it| it.pending) => signal(guest.number, device, event),
                None => {}
            }
        });
        let now = look_up();
        let mut applied = mem::replace(&mut target, now);
        if let Some(applied) = &mut applied {
            applied.pending = false;
        }
        now == applied
    });
    if !is_settled {
        vectors.with(|vectors| {
            if let Some(vector) = vectors.get_mut(index) {
                vector.give_up(injection, target.is_some_and(|target| target.pending));
                vector.unmask();
            }
        });
    }
    vectors.with(|vectors| {
        if let Some(vector) = vectors.get_mut(index).filter(|vector| !vector.waits()) {
            vector.unmask();
        }
    });
}

/// Looks up an event in the model, and takes its LPI's pending state.
fn look_up(guest: &Guest, device: DeviceId, event: EventId) -> Option<DirectTarget> {
    let target = || guest.vgic().direct_target(0, device, event);
    target().unwrap_or_else(|InListRegister| {
        let kick = |cpu| guest.kick(cpu);
        guest.gate.while_empty(kick, target).expect("no vCPU has list registers")
    })
}

/// Returns `true` if a write to this register of the model may disable an ITS or a vCPU's LPIs.
/// `GITS_BASER` can only be written while the ITS is disabled.
pub(crate) fn is_disabling(vgic: &Vgic, address: u64) -> bool {
    let config = vgic.config();
    let mut frames = config.redistributors.iter();
    config.its.iter().any(|its| address == its.base + u64::from(gits::CTLR.offset()))
        || frames.any(|region| {
            let offset = address.wrapping_sub(region.base);
            let bytes = region.stride * u64::from(region.count);
            offset < bytes && offset.is_multiple_of(region.stride)
        })
}

/// Runs a write that [may disable](is_disabling) LPIs, or a move, while no event of the guest is
/// direct.
pub(crate) fn around<R>(guest: &Guest, change: impl FnOnce() -> R) -> R {
    let Some(injection) = of(guest.number) else { return change() };
    // A command of another vCPU must not hand over an event during the change.
    injection.suspensions.fetch_add(1, SeqCst);
    take_all_back(guest.number, &injection);
    let result = change();
    injection.suspensions.fetch_sub(1, SeqCst);
    let events: Vec<_> = vectors_of(guest.number).with(|vectors| {
        let open = |vector: &Vector| vector.event.filter(|_| vector.is_open);
        vectors.iter().map(|vector| open(vector).map(|event| (vector.device, event))).collect()
    });
    for (index, event) in events.into_iter().enumerate() {
        if let Some(event) = event {
            follow_event(&injection, guest, index, event);
        }
    }
    result
}

/// Moves a guest to a new GIC, while none of its events is direct.
pub(crate) fn around_move(guest: &Guest, rebuild: &mut dyn FnMut()) {
    around(guest, || {
        rebuild();
        attach(guest);
    });
}

/// Follows the commands of a guest's ITS. When the guest ends, its injection is freed.
struct Follower {
    guest: usize,
    injection: Weak<Injection>,
}

impl DirectInjection for Follower {
    fn before(&self, command: Command) -> bool {
        let pending = match command {
            Command::Int { .. } => Some(Pending::Set),
            Command::Clear { .. } => Some(Pending::Clear),
            Command::Movall { .. } | Command::Mapc { action: MapAction::Unmap, .. } => None,
            _ => return false,
        };
        let Some(injection) = self.injection.upgrade() else { return false };
        let Some(pending) = pending else {
            take_all_back(self.guest, &injection);
            return false;
        };
        self.set_pending(&injection.vpes, command, pending) && pending == Pending::Set
    }

    fn is_direct(&self, lpi: Lpi) -> bool {
        vectors_of(self.guest).with(|vectors| {
            let mut direct = vectors.iter().filter_map(|vector| vector.direct.as_ref());
            direct.any(|(event, _)| event.target().lpi == lpi)
        })
    }

    fn after(
        &self,
        command: Option<Command>,
        translate: &mut Translate<'_>,
    ) -> Result<u32, InListRegister> {
        let Some(injection) = self.injection.upgrade() else { return Ok(0) };
        if let Some(Command::Int { .. } | Command::Clear { .. }) = command {
            return Ok(0);
        }
        let mut followed = 0;
        vectors_of(self.guest).with(|vectors| {
            for vector in vectors.iter_mut().filter(|vector| is_about(command, vector)) {
                followed += 1;
                let translated = vector.event.map(|event| translate(vector.device, event));
                vector.apply(&injection, translated.transpose()?.flatten());
            }
            Ok(followed)
        })
    }
}

impl Follower {
    /// Changes the pending state of a direct event. Returns `false` if the event is not direct.
    fn set_pending(&self, vpes: &VpeSet<Kernel>, command: Command, pending: Pending) -> bool {
        vectors_of(self.guest).with(|vectors| {
            let mut concerned = vectors.iter().filter(|vector| is_about(Some(command), vector));
            let Some((event, _)) = concerned.find_map(|vector| vector.direct.as_ref()) else {
                return false;
            };
            if let Err(error) = vpes.set_pending(event, pending) {
                report_first(&error);
            }
            true
        })
    }
}

/// Returns `true` if the command concerns the vector's event. If a command has failed, `before` may
/// have taken any event back.
fn is_about(command: Option<Command>, vector: &Vector) -> bool {
    let (device, event) = command.map_or((None, None), |it| (it.device(), it.event()));
    device.is_none_or(|device| device == vector.device)
        && event.is_none_or(|event| Some(event) == vector.event)
        && (vector.is_open || vector.direct.is_some())
}
