//! Hyper-V's virtual PCI bus: the host end, and the guest's channel to it, which consists of rings
//! in heap memory.
//!
//! ```text
//! guest's Bus ── ring ──▶ HypervHost ── Injection ──▶ the guest's interrupt controller
//!      └── its kernel: a wait lets the host work              ▲
//!                         functions' messages ── signal_msi ──┘
//! ```
//!
//! The host end can migrate: it is saved, dropped, and restored on the same rings. Functions don't
//! send messages during a migration.

mod migration;

pub use migration::HostMigration;

use crate::lock::lock;
use crate::platform::MachinePlatform;
use hyperv_vpci::guest::{Bus, BusConfig, Hypercall, Kernel, Vectors, Wait};
use hyperv_vpci::host::{FunctionInterrupts, Host, HostConfig, HostFunction, Injection};
use hyperv_vpci::protocol::{DeviceDescription, RetargetInput, Slot};
use hyperv_vpci::ring::{HeapRing, RingChannel};
use migration::{Full, Migrations, Request};
use msi_types::{
    Cpu, Delivery, DeviceId, IrqState, LocalCpu, MsiMessage, NoIdentity, RequesterId, SignalMsi,
    TaskContext,
};
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The address of all messages that the host grants to the guest. No other doorbell may use this
/// address.
pub const MESSAGE_ADDRESS: u64 = 0xfeed_0000;

/// The bus's instance GUID, in memory byte order.
const INSTANCE: [u8; 16] = *b"doorbell's buses";

const WINDOW: u64 = 0x1000_0000;
const RING_PAGES: NonZeroU8 = NonZeroU8::new(4).expect("4 is not zero");
/// Maximum number of vectors, for each function and for all functions together.
const QUOTA: u16 = 64;
const VECTORS: u16 = 956;

/// Maximum number of iterations of a guest's wait. The host replies during the first one. A kernel
/// whose host may be hostile must look at its clock instead.
const PATIENCE: u32 = 8;

type Channel = RingChannel<HeapRing, fn()>;

/// The host end of a virtual bus.
pub struct HypervHost {
    config: HostConfig,
    cpus: u16,
    injection: Injection,
    /// The guest-to-host ring and the host-to-guest ring.
    rings: [HeapRing; 2],
    end: Mutex<HostEnd>,
    guest: Mutex<Option<Channel>>,
    /// The functions that can send messages. The lock is held for reading while a function sends,
    /// so a function that was removed from the list can't still be sending.
    senders: RwLock<Vec<(RequesterId, Arc<FunctionInterrupts>)>>,
}

/// The host end: the state that migrates, and the state that does not.
struct HostEnd {
    host: Host,
    channel: Channel,
    offered: Vec<HostFunction>,
    /// Serial number of the most recently offered function. Each inserted function receives a new
    /// number.
    serial: u32,
    migrations: Migrations,
}

/// Does nothing: each end polls the rings, so it doesn't need to be signaled.
fn nobody() {}

fn end_of(outgoing: &HeapRing, incoming: &HeapRing) -> Result<Channel, String> {
    RingChannel::new(outgoing.clone(), incoming.clone(), nobody as fn())
        .map_err(|error| error.to_string())
}

impl HypervHost {
    /// Offers `functions` to a guest with `cpus` CPUs. The functions' interrupts are delivered
    /// through `injection`.
    ///
    /// # Errors
    /// Fails if the host cannot be created, or if it rejects a function.
    pub fn new(
        injection: Injection,
        cpus: u16,
        functions: &[RequesterId],
        migration: HostMigration,
    ) -> Result<Arc<Self>, String> {
        let ring = || HeapRing::new(RING_PAGES).map_err(|error| error.to_string());
        let (there, back) = (ring()?, ring()?);
        let config = HostConfig::new(cpus, MESSAGE_ADDRESS, INSTANCE).with_quota(QUOTA);
        let host = Host::new(config, injection.clone()).map_err(|error| error.to_string())?;
        let channel = end_of(&back, &there)?;
        let migrations = Migrations::new(migration);
        let end = HostEnd { host, channel, offered: Vec::new(), serial: 0, migrations };
        let guest = Mutex::new(Some(end_of(&there, &back)?));
        let (end, senders) = (Mutex::new(end), RwLock::default());
        let host = Self { config, cpus, injection, rings: [there, back], end, guest, senders };
        functions.iter().try_for_each(|requester| host.offer(*requester))?;
        Ok(Arc::new(host))
    }

    /// Opens the guest end, which assigns `vectors` to functions. Must be called only once.
    ///
    /// # Errors
    /// Fails if the bus is already open, or if the guest's driver fails.
    pub fn open(
        self: &Arc<Self>,
        platform: &Arc<MachinePlatform>,
        vectors: Vectors,
    ) -> Result<Arc<Bus>, String> {
        let channel = lock(&self.guest).take().ok_or("the bus is already open")?;
        let kernel = GuestKernel { platform: Arc::clone(platform), host: Arc::clone(self) };
        let config = BusConfig::new(WINDOW, 0, VECTORS);
        let bus = Bus::open(config, Box::new(channel), vectors, Arc::new(kernel));
        bus.map(Arc::new).map_err(|error| error.to_string())
    }

    /// Returns a description of the messages that the guest has not released. Returns `None` if the
    /// guest has released all messages.
    pub fn kept(&self) -> Option<String> {
        let end = lock(&self.end);
        let slots = end.offered.iter().map(|function| function.description.slot);
        let kept: u32 = slots.map(|slot| end.host.vectors(slot)).sum();
        (kept != 0).then(|| format!("{kept} of the host's messages"))
    }

    /// Inserts a function and notifies the guest.
    ///
    /// # Errors
    /// Fails if the host rejects the function, or if the channel fails.
    pub fn offer(&self, requester: RequesterId) -> Result<(), String> {
        let HostEnd { host, channel, offered, serial, .. } = &mut *lock(&self.end);
        *serial += 1;
        let slot = Slot::of(requester);
        let description =
            DeviceDescription { slot, serial: *serial, ..DeviceDescription::default() };
        let function = HostFunction::new(description, [0; 6]);
        let interrupts = host.offer(function).map_err(|error| error.to_string())?;
        offered.push(function);
        self.set_sender(requester, interrupts);
        host.serve(channel).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Asks the guest to release a function.
    ///
    /// # Errors
    /// Fails if the host has no such function, or if the channel fails.
    pub fn eject(&self, requester: RequesterId) -> Result<(), String> {
        let HostEnd { host, channel, .. } = &mut *lock(&self.end);
        host.eject(Slot::of(requester)).map_err(|error| error.to_string())?;
        host.serve(channel).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Removes a function without the guest's consent. The function can't send any more, and the
    /// guest is notified.
    ///
    /// # Errors
    /// Fails if the host has no such function, or if the channel fails.
    pub fn remove(&self, requester: RequesterId) -> Result<(), String> {
        let HostEnd { host, channel, offered, .. } = &mut *lock(&self.end);
        let slot = Slot::of(requester);
        host.remove(slot).map_err(|error| error.to_string())?;
        offered.retain(|function| function.description.slot != slot);
        host.serve(channel).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Deletes a function that the guest has already released.
    ///
    /// # Errors
    /// Fails if the channel fails, or if the guest did not confirm the ejection.
    pub fn forget(&self, requester: RequesterId) -> Result<(), String> {
        let HostEnd { host, channel, offered, .. } = &mut *lock(&self.end);
        host.serve(channel).map_err(|error| error.to_string())?;
        let slot = Slot::of(requester);
        offered.retain(|function| function.description.slot != slot);
        match host.remove(slot) {
            Ok(()) => Err(format!("the guest did not confirm the ejection from slot {slot}")),
            Err(_) => Ok(()),
        }
    }

    /// Saves the host end, drops it and restores it. Functions don't send messages in the meantime.
    ///
    /// # Errors
    /// Fails if the host end cannot be restored, or if saving the restored host end yields a
    /// different state.
    pub fn migrate(&self) -> Result<(), String> {
        self.migrate_end(&mut lock(&self.end))
    }

    fn migrate_end(&self, end: &mut HostEnd) -> Result<(), String> {
        let mut senders = self.senders.write().unwrap_or_else(PoisonError::into_inner);
        let (saved, indices) = (end.host.save(), end.channel.indices());
        let restored = Host::restore(self.config, self.injection.clone(), &end.offered, &saved);
        let (host, interrupts) = restored.map_err(|error| error.to_string())?;
        if host.save() != saved {
            return Err("a restored host does not save the same state".to_owned());
        }
        let [there, back] = &self.rings;
        let channel = RingChannel::restore(back.clone(), there.clone(), nobody as fn(), indices);
        end.channel = channel.map_err(|error| error.to_string())?;
        end.host = host;
        for (function, interrupts) in end.offered.iter().zip(interrupts) {
            let requester = function.description.slot.requester(0);
            let sender = senders.iter_mut().find(|(other, _)| *other == requester);
            if let Some((_, sender)) = sender {
                *sender = interrupts;
            }
        }
        Ok(())
    }

    /// Returns the number of migrations between a request and its reply.
    ///
    /// # Errors
    /// Fails if a migration failed; the error holds the reason for the first failure.
    pub fn migrated_in_flight(&self) -> Result<u64, String> {
        lock(&self.end).migrations.in_flight()
    }

    fn set_sender(&self, requester: RequesterId, interrupts: Arc<FunctionInterrupts>) {
        let mut senders = self.senders.write().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|(other, _)| *other != requester);
        senders.push((requester, interrupts));
    }
}

impl HypervHost {
    /// Lets the host run in iteration `turn` of a guest's wait.
    fn answer(&self, turn: u32) {
        let end = &mut *lock(&self.end);
        if turn == 0
            && let Some(request) = end.migrations.due()
        {
            if request == Request::Taken {
                let _ = end.host.serve(&mut Full(&mut end.channel));
            }
            let migrated = self.migrate_end(end);
            end.migrations.note(migrated);
        }
        // If the channel fails, the guest's waits time out, so the guest notices the failure.
        let _ = end.host.serve(&mut end.channel);
    }
}

/// The guest's kernel, as seen by the guest end of the bus. While the kernel waits, the host and
/// other tasks run.
struct GuestKernel {
    platform: Arc<MachinePlatform>,
    host: Arc<HypervHost>,
}

impl LocalCpu for GuestKernel {
    fn irq_save(&self) -> IrqState {
        self.platform.irq_save()
    }

    fn irq_restore(&self, state: IrqState) {
        self.platform.irq_restore(state);
    }

    fn relax(&self) {
        self.platform.relax();
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl TaskContext for GuestKernel {
    fn may_wait(&self) -> bool {
        self.platform.may_wait()
    }
}

impl Kernel for GuestKernel {
    /// Returns a constant, because tasks in this kernel don't sleep: each iteration of a wait lets
    /// the host run.
    fn wake_ups(&self) -> u32 {
        0
    }

    fn wake(&self) {}

    fn wait(&self, _: u32, turn: u32) -> Wait {
        self.platform.relax();
        self.host.answer(turn);
        if turn < PATIENCE { Wait::Again } else { Wait::GiveUp }
    }

    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok().filter(|index| *index < self.host.cpus)
    }
}

/// A function sends the messages that the guest has stored in it. Only functions that the host
/// offers can send on a virtual bus.
impl SignalMsi<RequesterId> for HypervHost {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        let senders = self.senders.read().unwrap_or_else(PoisonError::into_inner);
        let function = senders.iter().find(|(requester, _)| *requester == from);
        function.map_or(Delivery::NoDoorbell, |(_, interrupts)| {
            interrupts.signal_msi(NoIdentity, message)
        })
    }
}

/// The host of a bus on which each function's DeviceID equals its requester ID.
impl SignalMsi<DeviceId> for HypervHost {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        self.signal_msi(RequesterId::new(from.get()), message)
    }
}

impl Hypercall for HypervHost {
    fn retarget(&self, input: &RetargetInput) -> u16 {
        lock(&self.end).host.retarget(input.bytes())
    }
}

msi_types::debug_by!(HypervHost as "HypervHost", |it| {config: it.config});
