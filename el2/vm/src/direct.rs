//! Direct injection (GICv4.0; option `direct`): the redistributor signals a device's message to the
//! guest without an exit, because its event is mapped to a virtual LPI of a vPE ([`VpeSet`]).
//!
//! It serves each guest with an ITS, as long as the machine has free vPEs. A vCPU's vPE is resident
//! while the vCPU is loaded. A vCPU that is off or preempted finds its virtual LPIs when it is
//! loaded again. A vCPU whose WFI exits, because vCPUs share CPUs, or that calls `CPU_SUSPEND`,
//! leaves its vPE not resident while it waits, even if it stays loaded: virtual LPIs do not wake a
//! CPU at EL2. Its doorbell wakes it instead.
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
//! | MOVALL, MAPC with V = 0, a write to `GITS_CTLR` or `GICR_CTLR`; a move of the guest | takes all events back first, makes those that are pending also pending in the model, and then hands them over again |
//!
//! While an event is handed over or taken back, and while the guest's ITS does not translate it,
//! its vector is masked. So no message is lost or doubled. An MSI cannot be masked, so it is
//! signaled once afterwards, because a message may have been lost: the guest may take a superfluous
//! interrupt. So may a guest whose hardware has failed.
//!
//! Locks: the model's locks are outside of [`VECTORS`]. Code that holds `VECTORS` may only signal
//! messages to the model, and kick vCPUs.

use crate::guest::{self, Guest};
use crate::irqchip;
use crate::scheduler::{self, VcpuId};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use doorbell_facts::{Fact, HypervisorFact};
use gic_arch::its::{Command, MapAction};
use gic_arch::lpi::Config;
use gic_arch::{IntId, Lpi, gits};
use gic_bringup::MsiController;
use gic_driver::ItsError;
use gic_driver::its::{DirectEvent, Its, VirtualLpi, VpeSet};
use image_rt::lock::IrqMutex;
use image_rt::platform::Kernel;
use image_rt::println;
use msi_types::{Cpu, DeviceId, EventId, MessageStore, MsiMessage, Pending};
use spin::Once;
use vgic::its::ItsConfig;
use vgic::{DirectInjection, DirectTarget, Translate, Vgic};

/// For each guest, its injection, or `None` if its messages pass through the hypervisor.
static INJECTIONS: Once<Box<[Option<Injection>]>> = Once::new();
/// Vectors of all guests' functions.
static VECTORS: IrqMutex<Vec<Vector>> = IrqMutex::new(Vec::new());
/// `true` if the option is set.
static IS_WANTED: AtomicBool = AtomicBool::new(false);
/// `true` once the hardware has failed. No event is direct any more.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);
/// Number of CPUs that are targets of the ITS, apart from the first.
static ONLINE: AtomicU32 = AtomicU32::new(0);
/// Number of vPEs for which the ITSes have room.
pub(crate) const MAX_VPES: u16 = 64;
/// Maximum number of attempts to follow an event that the guest moves at the same time.
const ATTEMPTS: u32 = 8;

/// Direct injection into a guest.
struct Injection {
    vpes: VpeSet<Kernel>,
    /// Number of register writes and moves in progress that may disable LPIs. While it is nonzero,
    /// no event is handed over.
    suspensions: AtomicU32,
}

/// Returns a guest's injection.
#[inline]
fn of(guest: usize) -> Option<&'static Injection> {
    INJECTIONS.get()?.get(guest)?.as_ref()
}

/// A function's vector as the guest sees it.
pub trait GuestVector: Send {
    /// Returns the message that the guest wrote, if it lets the function send it.
    fn message(&self) -> Option<MsiMessage>;
}

/// A function's vector.
struct Vector {
    /// Number of the guest.
    owner: usize,
    guest: Box<dyn GuestVector>,
    device: DeviceId,
    store: Arc<dyn MessageStore>,
    slot: u16,
    physical: Lpi,
    /// The guest's event, as of the last time that the guest let the function send it.
    event: Option<EventId>,
    is_open: bool,
    /// `true` if messages may be on their way through the hypervisor.
    has_sent: bool,
    direct: Option<(DirectEvent, Config)>,
}

impl Vector {
    fn mask(&self) {
        if let Some(mask) = self.store.fast_mask() {
            mask.mask(self.slot);
        }
    }

    /// Unmasks the vector, if the guest does.
    fn unmask(&mut self) {
        if let Some(mask) = self.store.fast_mask().filter(|_| self.is_open) {
            mask.unmask(self.slot);
        }
        self.has_sent |= self.is_open && self.direct.is_none();
    }

    /// Returns `true` if the vector stays masked until its event is handed over. The function then
    /// keeps its messages, so none is on its way when the event is handed over.
    fn waits(&self) -> bool {
        let may_be_handed_over = self.event.is_some() && !HAS_FAILED.load(SeqCst);
        self.direct.is_none() && may_be_handed_over && self.store.fast_mask().is_some()
    }

    /// Follows the guest's mask. Returns the event of a vector that the guest has just unmasked,
    /// and that is still masked here. A message to another address than `doorbell` stays with the
    /// hypervisor.
    fn follow_mask(&mut self, injection: &Injection, doorbell: u64) -> Option<EventId> {
        let message = self.guest.message();
        let was_open = core::mem::replace(&mut self.is_open, message.is_some());
        let Some(message) = message else {
            if was_open {
                self.mask();
            }
            return None;
        };
        let event = (message.address == doorbell).then_some(EventId::new(message.data));
        if was_open && self.event == event {
            return None;
        }
        self.mask();
        if self.event != event {
            self.give_up(injection);
        }
        self.event = event;
        if event.is_none() {
            self.unmask();
        }
        event
    }

    /// Makes the event's mapping agree with its translation by the guest's ITS.
    fn apply(&mut self, injection: &Injection, target: Option<DirectTarget>) {
        let may_hand_over = !HAS_FAILED.load(SeqCst) && injection.suspensions.load(SeqCst) == 0;
        if target.is_some() && !may_hand_over {
            return self.give_up(injection);
        }
        if let Err(error) = self.try_apply(injection, target) {
            report_first(&error);
            self.give_up(injection);
            self.unmask();
        }
    }

    /// Takes the event back although the guest's ITS still translates it. If its virtual LPI is
    /// pending, makes its LPI pending in the model.
    fn give_up(&mut self, injection: &Injection) {
        if let (true, Some(event), Some(guest)) =
            (self.take_back(injection), self.event, guest::guests().get(self.owner))
        {
            let vgic = guest.vgic();
            let message =
                |its: &ItsConfig| MsiMessage { address: its.doorbell(), data: event.get() };
            let message = vgic.config().its.first().map(message);
            // The model drops the message if LPIs have been disabled since.
            _ = vgic.its(0).zip(message).map(|(its, message)| its.signal_msi(self.device, message));
        }
    }

    fn try_apply(
        &mut self,
        injection: &Injection,
        target: Option<DirectTarget>,
    ) -> Result<(), ItsError> {
        let vpes = &injection.vpes;
        let Some(DirectTarget { lpi, cpu, config, .. }) = target else {
            self.take_back(injection);
            return Ok(());
        };
        let to = VirtualLpi { vpe: cpu.get() as u16, lpi };
        let direct = self.direct.as_mut();
        if let Some((event, current)) = direct.filter(|(event, _)| event.target().lpi == lpi) {
            if event.target() != to {
                vpes.move_event(event, to.vpe)?;
            } else if *current == config {
                return Ok(());
            }
            vpes.configure(lpi, config)?;
            *current = config;
            vpes.invalidate(event)?;
            // Neither VMOVI nor INV of a pending LPI need ring the doorbell.
            if vpes.wake(to.vpe) {
                kick(self.owner, cpu);
            }
            return Ok(());
        }
        self.mask();
        self.take_back(injection);
        vpes.configure(lpi, config)?;
        let (event, _) = self.direct.insert((vpes.hand_over(self.physical, to)?, config));
        // The redistributor may have cached the configuration of an earlier owner.
        vpes.invalidate(event)?;
        if core::mem::take(&mut self.has_sent) {
            vpes.set_pending(event, Pending::Set)?;
        }
        self.unmask();
        Ok(())
    }

    /// Masks the vector, and maps the event to its physical LPI again. Returns `true` if its
    /// virtual LPI was pending, or if this is unknown.
    fn take_back(&mut self, injection: &Injection) -> bool {
        let Some((event, _)) = self.direct.take() else { return false };
        self.mask();
        let is_maskable = self.store.fast_mask().is_some();
        self.has_sent |= self.is_open && !is_maskable;
        let was_pending = injection.vpes.take_back(event).unwrap_or_else(|error| {
            report_first(&error);
            true
        });
        was_pending || !is_maskable
    }
}

/// Prints the error, but only the first one, because a guest could otherwise flood the console.
fn report_first(error: &ItsError) {
    static HAS_PRINTED: AtomicBool = AtomicBool::new(false);
    if !HAS_PRINTED.swap(true, SeqCst) {
        println!("hypervisor: direct injection: {error}");
    }
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

fn kick(guest: usize, cpu: Cpu) {
    scheduler::kick(VcpuId { guest, cpu });
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
    VECTORS.with(|vectors| vectors.push(vector));
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
    let injections: Box<[_]> = injections.collect();
    if injections.iter().any(Option::is_some) {
        INJECTIONS.call_once(|| injections);
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
    if of(guest.number).is_some() {
        let set = guest.vgic().inject_directly(0, Arc::new(Follower(guest.number)));
        set.expect("nothing follows a new GIC, which has an ITS");
    }
}

/// Makes the vPE of a vCPU that is being loaded resident on the calling CPU.
pub(crate) fn load(vcpu: VcpuId) {
    reside(vcpu, |vpes, vpe| vpes.load(vpe, irqchip::here()));
}

/// Makes the vPE of a vCPU that is being unloaded leave the calling CPU.
pub(crate) fn put(vcpu: VcpuId) {
    reside(vcpu, |vpes, vpe| vpes.put(vpe).map(|_| ()));
}

/// Makes the vPE of a vCPU that waits for an interrupt leave the calling CPU. The vCPU must be
/// [loaded](load) again before it is entered, and is kicked if a virtual LPI becomes pending.
pub(crate) fn wait(vcpu: VcpuId) {
    reside(vcpu, VpeSet::put_to_wait);
}

/// Returns `true` if a virtual LPI may have become pending since the vCPU [waits](wait).
#[inline]
pub(crate) fn may_be_pending(vcpu: VcpuId) -> bool {
    let injection = of(vcpu.guest).filter(|_| !HAS_FAILED.load(SeqCst));
    injection.is_some_and(|injection| injection.vpes.may_be_pending(vcpu.cpu.get() as u16))
}

/// Handles an interrupt that has no handler. If it is a doorbell, wakes the vCPU.
#[cold]
pub(crate) fn ring(intid: IntId) {
    let Ok(lpi) = Lpi::try_from(intid) else { return };
    let injections = (0..).zip(INJECTIONS.get().into_iter().flatten());
    let rung =
        |(guest, it): (usize, &Option<Injection>)| Some((guest, it.as_ref()?.vpes.ring(lpi)?));
    if let Some((guest, vpe)) = injections.into_iter().find_map(rung) {
        kick(guest, Cpu::new(vpe.into()));
    }
}

/// Changes a vPE's residency. If this fails, no event is direct any more.
#[inline]
fn reside(vcpu: VcpuId, change: impl FnOnce(&VpeSet<Kernel>, u16) -> Result<(), ItsError>) {
    let Some(injection) = of(vcpu.guest).filter(|_| !HAS_FAILED.load(SeqCst)) else { return };
    let Err(error) = change(&injection.vpes, vcpu.cpu.get() as u16) else { return };
    if !HAS_FAILED.swap(true, SeqCst) {
        println!("hypervisor: direct injection ends: {error}");
        for guest in guest::guests() {
            if let Some(injection) = of(guest.number) {
                take_all_back(guest.number, injection);
            }
        }
        VECTORS.with(|vectors| vectors.iter_mut().for_each(Vector::unmask));
    }
}

/// Takes all events of a guest back. If their virtual LPIs are pending, they become pending in the
/// model.
fn take_all_back(guest: usize, injection: &Injection) {
    VECTORS.with(|vectors| {
        let own = vectors.iter_mut().filter(|vector| vector.owner == guest);
        own.for_each(|vector| vector.give_up(injection));
    });
}

/// Follows the guest's changes of a function's messages. Must be called before the function may
/// send.
pub fn follow_messages(owner: usize, device: DeviceId) {
    let (Some(injection), Some(guest)) = (of(owner), guest::guests().get(owner)) else { return };
    let Some(doorbell) = guest.vgic().config().its.first().map(ItsConfig::doorbell) else {
        return;
    };
    let count = VECTORS.with(|vectors| vectors.len());
    for index in 0..count {
        let event = VECTORS.with(|vectors| {
            let is_its = |vector: &&mut Vector| (vector.owner, vector.device) == (owner, device);
            let vector = vectors.get_mut(index).filter(is_its);
            vector.and_then(|vector| vector.follow_mask(injection, doorbell))
        });
        if let Some(event) = event {
            follow_event(injection, guest.vgic(), index, (device, event));
        }
    }
}

/// Applies the translation of a vector's event, which another vCPU may change at the same time:
/// [`Follower`] then applies the new one, perhaps before the old one is applied here. If another
/// vCPU gives the vector another event, it applies that one.
fn follow_event(
    injection: &Injection,
    vgic: &Vgic,
    index: usize,
    (device, event): (DeviceId, EventId),
) {
    let apply = |target| {
        VECTORS.with(|vectors| {
            let is_its = |vector: &&mut Vector| vector.event == Some(event);
            if let Some(vector) = vectors.get_mut(index).filter(is_its) {
                vector.apply(injection, target);
            }
        });
    };
    let mut target = vgic.direct_target(0, device, event);
    for _ in 0..ATTEMPTS {
        apply(target);
        let now = vgic.direct_target(0, device, event);
        if now == target {
            break;
        }
        target = now;
    }
    if vgic.direct_target(0, device, event) != target {
        VECTORS.with(|vectors| {
            if let Some(vector) = vectors.get_mut(index) {
                vector.give_up(injection);
                vector.unmask();
            }
        });
    }
    VECTORS.with(|vectors| {
        if let Some(vector) = vectors.get_mut(index).filter(|vector| !vector.waits()) {
            vector.unmask();
        }
    });
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
    take_all_back(guest.number, injection);
    let result = change();
    injection.suspensions.fetch_sub(1, SeqCst);
    let events: Vec<_> = VECTORS.with(|vectors| {
        let is_open = |vector: &Vector| vector.owner == guest.number && vector.is_open;
        let open = |vector: &Vector| vector.event.filter(|_| is_open(vector));
        vectors.iter().map(|vector| open(vector).map(|event| (vector.device, event))).collect()
    });
    for (index, event) in events.into_iter().enumerate() {
        if let Some(event) = event {
            follow_event(injection, guest.vgic(), index, event);
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

/// Follows the commands of the ITS of the guest with this number.
struct Follower(usize);

impl DirectInjection for Follower {
    fn before(&self, command: Command) -> bool {
        let Some(injection) = of(self.0) else { return false };
        match command {
            Command::Int { .. } => return self.set_pending(&injection.vpes, command, Pending::Set),
            Command::Clear { .. } => _ = self.set_pending(&injection.vpes, command, Pending::Clear),
            Command::Movall { .. } | Command::Mapc { action: MapAction::Unmap, .. } => {
                take_all_back(self.0, injection);
            }
            _ => {}
        }
        false
    }

    fn is_direct(&self, lpi: Lpi) -> bool {
        VECTORS.with(|vectors| {
            let own = vectors.iter().filter(|vector| vector.owner == self.0);
            let mut direct = own.filter_map(|vector| vector.direct.as_ref());
            direct.any(|(event, _)| event.target().lpi == lpi)
        })
    }

    fn after(&self, command: Option<Command>, translate: &Translate<'_>) -> u32 {
        let Some(injection) = of(self.0) else { return 0 };
        let keeps =
            |it| matches!(it, Command::Sync { .. } | Command::Int { .. } | Command::Clear { .. });
        if command.is_some_and(keeps) {
            return 0;
        }
        let is_new = matches!(command, Some(Command::Mapti { .. } | Command::Mapi { .. }));
        let mut followed = 0;
        VECTORS.with(|vectors| {
            for vector in vectors.iter_mut().filter(|vector| self.is_about(command, vector)) {
                followed += 1;
                if is_new {
                    // The model has discarded the pending state, too.
                    vector.take_back(injection);
                }
                let target = vector.event.and_then(|event| translate(vector.device, event));
                vector.apply(injection, target);
            }
        });
        followed
    }
}

impl Follower {
    /// Changes the pending state of a direct event. Returns `false` if the event is not direct.
    fn set_pending(&self, vpes: &VpeSet<Kernel>, command: Command, pending: Pending) -> bool {
        VECTORS.with(|vectors| {
            let mut concerned =
                vectors.iter().filter(|vector| self.is_about(Some(command), vector));
            let Some((event, _)) = concerned.find_map(|vector| vector.direct.as_ref()) else {
                return false;
            };
            if let Err(error) = vpes.set_pending(event, pending) {
                report_first(&error);
            }
            true
        })
    }

    /// Returns `true` if the command concerns the vector's event. If a command has failed, `before`
    /// may have taken any event back.
    fn is_about(&self, command: Option<Command>, vector: &Vector) -> bool {
        let (device, event) = command.map_or((None, None), |it| (it.device(), it.event()));
        vector.owner == self.0
            && device.is_none_or(|device| device == vector.device)
            && event.is_none_or(|event| Some(event) == vector.event)
            && (vector.is_open || vector.direct.is_some())
    }
}
