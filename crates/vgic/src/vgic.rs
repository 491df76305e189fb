//! The shared side of the model, which any thread may use: register frames, lines and messages.

mod address_map;
mod parts;
mod signals;

pub(crate) use address_map::{AddressMap, FrameAt};
pub use address_map::{Block, Region};

use crate::config::{ConfigError, V2mConfig, VgicConfig};
use crate::cpu_interface::CpuInterface;
use crate::frames::distributor::Distributor;
use crate::frames::its::{CommandFaultLog, Its};
use crate::frames::mbi::Mbi;
use crate::frames::redistributor::{Redistributor, RedistributorRegisters};
use crate::frames::registers::Refusal;
use crate::frames::v2m::V2m;
use crate::lpi::LpiCore;
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, RegisterFrame};
use crate::monitor::{
    AccessWidth, DirectInjection, DirectTarget, GuestMemory, InListRegister, Progress,
};
use crate::sync::lock::Mutex;
use crate::wakeup::VcpuWakeup;
use crate::wired::interrupt::InterruptWord;
use crate::wired::{LinkError, PhysicalInterrupts, Wired};
use alloc::boxed::Box;
use alloc::sync::Arc;
use doorbell_fallible::{try_arc, try_boxed_slice};
use gic_arch::{IntId, gicd, gicr, gits};
use msi_types::{Cpu, Delivery, DeviceId, EventId, Kick, Line, LineObserver, SignalMsi};

/// A virtual GIC, as devices and the bus see it.
///
/// The type is `Sync`, and any thread may call any operation.
///
/// The [crate's example](crate#example) delivers an interrupt to a vCPU. `NoMemory` implements
/// [`GuestMemory`](crate::GuestMemory) for a guest without LPIs:
///
/// ```
/// # use vgic::{GuestMemory, MemoryFault};
/// # struct NoMemory;
/// # impl GuestMemory for NoMemory {
/// #     fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
/// #         Err(MemoryFault { address })
/// #     }
/// #     fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
/// #         Err(MemoryFault { address })
/// #     }
/// # }
/// use gic_arch::gicd;
/// use msi_types::Cpu;
/// use std::sync::Arc;
/// use vgic::{AccessWidth, Vgic, VgicConfig};
///
/// let config = VgicConfig::new(2);
/// let typer = config.distributor + u64::from(gicd::TYPER.offset());
/// let kick = Arc::new(|vcpu: Cpu| println!("make vCPU {vcpu} leave the guest"));
/// let (gic, vcpus) = Vgic::new(config, Arc::new(NoMemory), kick)?;
/// assert_eq!(vcpus.len(), 2);
///
/// // The guest's accesses, as a vCPU's exit handler forwards them:
/// assert!(gic.claims(typer));
/// println!("GICD_TYPER is {:#x}", gic.read(typer, AccessWidth::Word)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "vgic_dist")]
pub struct Vgic {
    pub(crate) config: VgicConfig,
    pub(crate) wired: Wired,
    pub(crate) events: Arc<EventLog>,
    pub(crate) wakeup: Arc<VcpuWakeup>,
    pub(crate) lpis: Option<Arc<LpiCore>>,
    pub(crate) its: Box<[Arc<Its>]>,
    /// Indexed by vCPU.
    pub(crate) redistributors: Box<[RedistributorRegisters]>,
    pub(crate) addresses: AddressMap,
    /// CPU interfaces of the paused vCPUs, indexed by vCPU. While this lock is held, no vCPU can
    /// pause or resume.
    pub(crate) paused: Mutex<Box<[Option<CpuInterface>]>>,
}

/// Error for an access outside the model's [regions](Vgic::regions).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the GIC has no frame at address {0:#x}")]
pub struct NotClaimed(pub u64);

/// Error from [`Vgic::observe_lines`] if an observer is already registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the GIC already has a line observer")]
pub struct ObserverTaken;

/// Error from [`Vgic::serve_physical`] if a [`PhysicalInterrupts`] is already registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the GIC's physical interrupts are already served")]
pub struct PhysicalTaken;

/// Target of a device's write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceWrite {
    /// A doorbell, with the outcome of the message.
    Message(Delivery),
    /// Another register, which was written as if by a CPU.
    Register,
}

impl Vgic {
    /// Creates the shared half of a machine.
    pub(crate) fn shared(
        config: VgicConfig,
        memory: Arc<dyn GuestMemory>,
        kick: Arc<dyn Kick>,
    ) -> Result<Arc<Self>, ConfigError> {
        config.validate()?;
        let wakeup = try_arc(VcpuWakeup::new(config.cpus.len(), kick)?)?;
        let has_lpis = config.lpi_id_bits.is_some();
        let kinds = if has_lpis { FaultReason::COUNT } else { FaultReason::WITHOUT_LPIS };
        let events = try_arc(EventLog::new(kinds)?)?;
        let lpis = parts::lpi_core(&config, memory, &wakeup, &events)?;
        let its = parts::translators(&config, lpis.as_ref(), &events)?;
        let paused = Mutex::new(try_boxed_slice(config.cpus.iter().map(|_| None))?);
        Ok(try_arc(Self {
            redistributors: parts::redistributors(&config)?,
            addresses: AddressMap::new(&config)?,
            wired: Wired::new(&config, Arc::clone(&wakeup))?,
            config,
            events,
            wakeup,
            lpis,
            its,
            paused,
        })?)
    }

    /// Registers an observer that is called when the guest deactivates a level-sensitive line, so
    /// that it can resample the line's source.
    ///
    /// The observer is called on EOI, DIR or a write to `ICACTIVER`, on the thread that handles the
    /// access. If the observer lowers the line during the call, the guest doesn't receive a
    /// spurious interrupt.
    ///
    /// # Errors
    /// [`ObserverTaken`] if an observer is already registered.
    pub fn observe_lines(&self, observer: Arc<dyn LineObserver>) -> Result<(), ObserverTaken> {
        self.wired.observe(observer).map_err(|_| ObserverTaken)
    }

    /// Lets hardware inject the messages of an ITS's events (`its` is its index).
    ///
    /// # Errors
    /// [`ObserverTaken`] if the ITS doesn't exist, or if hardware already injects its messages.
    pub fn inject_directly(
        &self,
        its: usize,
        direct: Arc<dyn DirectInjection>,
    ) -> Result<(), ObserverTaken> {
        let set = self.its.get(its).is_some_and(|its| its.inject_directly(direct));
        if set { Ok(()) } else { Err(ObserverTaken) }
    }

    /// Looks up an event of an ITS for [direct injection](Self::inject_directly). Returns `None` if
    /// its messages are dropped.
    ///
    /// # Errors
    /// [`InListRegister`] until the vCPU has exited, which has been kicked.
    pub fn direct_target(
        &self,
        its: usize,
        device: DeviceId,
        event: EventId,
    ) -> Result<Option<DirectTarget>, InListRegister> {
        self.its.get(its).map_or(Ok(None), |its| its.direct_target(device, event))
    }

    /// Reads `width` at a guest physical address. Refused accesses read as zero and are counted in
    /// [`events`](Self::events).
    ///
    /// # Errors
    /// [`NotClaimed`] if the address is outside the model's regions.
    pub fn read(&self, address: u64, width: AccessWidth) -> Result<u64, NotClaimed> {
        if let Some(offset) = self.distributor_offset(address)
            && let Some(word) = Distributor::FRAME.read_word(self.distributor(), offset, width)
        {
            return Ok(word);
        }
        self.read_any(address, width)
    }

    /// Reads like [`read`](Self::read), without its fast path for the distributor.
    #[inline(never)]
    fn read_any(&self, address: u64, width: AccessWidth) -> Result<u64, NotClaimed> {
        let (frame, offset) = self.frame_at(address).ok_or(NotClaimed(address))?;
        let at = frame.at(address - u64::from(offset));
        let refused = &mut |refusal: Refusal| {
            self.events.record(refusal.at(at, FaultDetail::None));
        };
        Ok(match frame {
            FrameAt::Its(its) => its.read(offset, width),
            FrameAt::Distributor => {
                Distributor::FRAME.read(self.distributor(), offset, width, refused)
            }
            FrameAt::Redistributor(cpu) => match self.redistributor_of(cpu) {
                Some(frame) => Redistributor::FRAME.read(frame, offset, width, refused),
                None => 0,
            },
            FrameAt::MbiAlias(base) => {
                Mbi::ALIAS.read(self.mbi_alias(base), offset, width, refused)
            }
            FrameAt::V2m(config) => self.v2m(config).read(offset, width, refused),
            FrameAt::Empty => {
                refused(Refusal::new(offset, FaultReason::UnknownRegister));
                0
            }
        })
    }

    /// Writes the low `width` of `value` to a guest physical address, in bounded time. Refused
    /// accesses are ignored and counted in [`events`](Self::events).
    ///
    /// [`Progress::Unfinished`] means that the guest has enabled LPIs or an ITS
    /// (`GICR_CTLR.EnableLPIs`, `GITS_CTLR.Enabled`), but messages do not arrive yet. The vCPU must
    /// then repeat the access before it does anything else. At EL2, it is enough to reenter the
    /// guest without advancing its PC. A VMM that has no means to repeat an access should call
    /// [`write_until_done`](Self::write_until_done).
    ///
    /// # Errors
    /// [`NotClaimed`] if the address is outside the model's regions.
    pub fn write(
        &self,
        address: u64,
        width: AccessWidth,
        value: u64,
    ) -> Result<Progress, NotClaimed> {
        let value = value & width.mask();
        if let Some(offset) = self.distributor_offset(address) {
            let frame = RegisterFrame::Distributor(self.config.distributor);
            let refused = &mut |refusal: Refusal| {
                self.events.record(refusal.at(frame, FaultDetail::Value(value)));
            };
            Distributor::FRAME.write(self.distributor(), offset, width, value, refused);
            return Ok(Progress::Done);
        }
        self.write_other(address, width, value)
    }

    /// Writes like [`write`](Self::write), to a frame other than the distributor's.
    fn write_other(
        &self,
        address: u64,
        width: AccessWidth,
        value: u64,
    ) -> Result<Progress, NotClaimed> {
        let (frame, offset) = self.frame_at(address).ok_or(NotClaimed(address))?;
        let at = frame.at(address - u64::from(offset));
        let refused = &mut |refusal: Refusal| {
            self.events.record(refusal.at(at, FaultDetail::Value(value)));
        };
        match frame {
            FrameAt::Its(its) => its.begin_write(offset, width, value),
            FrameAt::Distributor => {
                Distributor::FRAME.write(self.distributor(), offset, width, value, refused);
            }
            FrameAt::Redistributor(cpu) => {
                if let Some(frame) = self.redistributor_of(cpu) {
                    Redistributor::FRAME.write(frame, offset, width, value, refused);
                }
            }
            FrameAt::MbiAlias(base) => {
                Mbi::ALIAS.write(self.mbi_alias(base), offset, width, value, refused);
            }
            FrameAt::V2m(config) => self.v2m(config).write(offset, width, value, refused),
            FrameAt::Empty => refused(Refusal::new(offset, FaultReason::UnknownRegister)),
        }
        let is_enabling = match frame {
            FrameAt::Redistributor(cpu) if offset == gicr::CTLR.offset() => {
                self.redistributor_of(cpu).is_some_and(Redistributor::is_enabling)
            }
            FrameAt::Its(its) if offset == gits::CTLR.offset() => its.is_enabling(),
            _ => false,
        };
        Ok(Progress::done(!is_enabling))
    }

    /// Writes like [`write`](Self::write), but completes the access. Enabling LPIs or an ITS takes
    /// time in proportion to the number of mappings.
    ///
    /// # Errors
    /// [`NotClaimed`] if the address is outside the model's regions.
    pub fn write_until_done(
        &self,
        address: u64,
        width: AccessWidth,
        value: u64,
    ) -> Result<(), NotClaimed> {
        let progress = self.write(address, width, value)?;
        match self.frame_at(address) {
            Some((FrameAt::Its(its), _)) if progress == Progress::Unfinished => {
                its.finish_enabling();
            }
            Some((FrameAt::Redistributor(cpu), _)) if progress == Progress::Unfinished => {
                if let Some(frame) = self.redistributor_of(cpu) {
                    frame.finish_enabling();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes the low `width` of `value` on behalf of a device without an identity.
    ///
    /// The address may be that of a doorbell (`GICD_SETSPI_NSR`, `GICD_CLRSPI_NSR` and their alias,
    /// `GICR_SETLPIR`, `GICR_CLRLPIR`, GICv2m's `MSI_SETSPI_NS`) or of another register next to it.
    /// **This path provides no isolation:** a device that can reach a redistributor's doorbell can
    /// also reach `GICR_CTLR` and `GICR_PROPBASER`, and every device can signal every interrupt.
    /// Where possible, a VMM should give devices access only to the page of an ITS, a GICv2m frame
    /// or the [`VgicConfig::mbi_alias`] frame.
    ///
    /// `GITS_TRANSLATER` doesn't accept messages without an identity. Use [`its`](Self::its)
    /// instead.
    ///
    /// # Errors
    /// [`NotClaimed`] if the address is outside the model's regions.
    pub fn write_from_device(
        &self,
        address: u64,
        width: AccessWidth,
        value: u64,
    ) -> Result<DeviceWrite, NotClaimed> {
        let (frame, offset) = self.frame_at(address).ok_or(NotClaimed(address))?;
        match self.ring(frame, offset, width, value & width.mask()) {
            Some(delivery) => Ok(DeviceWrite::Message(delivery)),
            None => self.write_until_done(address, width, value).map(|()| DeviceWrite::Register),
        }
    }

    /// Writes to the doorbell at an offset in a frame. Returns `None` if there is no doorbell of
    /// that width.
    fn ring(
        &self,
        frame: FrameAt<'_>,
        offset: u32,
        width: AccessWidth,
        value: u64,
    ) -> Option<Delivery> {
        match frame {
            FrameAt::Distributor => self.distributor().mbi().ring(offset, width, value),
            FrameAt::MbiAlias(base) => self.mbi_alias(base).ring(offset, width, value),
            FrameAt::Redistributor(cpu) => self.redistributor_of(cpu)?.ring(offset, width, value),
            FrameAt::V2m(config) => self.v2m(config).ring(offset, width, value),
            FrameAt::Its(_) => (offset == gits::TRANSLATER.offset()).then_some(Delivery::Blocked),
            FrameAt::Empty => None,
        }
    }

    /// Registers the hypervisor's access to the physical interrupts to which virtual interrupts are
    /// [linked](Self::link).
    ///
    /// # Errors
    /// [`PhysicalTaken`] if a [`PhysicalInterrupts`] is already registered.
    pub fn serve_physical(
        &self,
        physical: Arc<dyn PhysicalInterrupts>,
    ) -> Result<(), PhysicalTaken> {
        self.wired.serve_physical(physical).map_err(|_| PhysicalTaken)
    }

    /// Links a virtual PPI or SPI to a physical interrupt, so that the physical interrupt is
    /// deactivated when the guest deactivates the virtual interrupt.
    ///
    /// If the virtual interrupt is in a list register whose `HW` bit is set, the hardware
    /// deactivates the physical interrupt. Links are for the hypervisor's timer, and for devices
    /// assigned to a guest.
    ///
    /// The hypervisor must acknowledge the physical interrupt, drop its priority and leave it
    /// active (EOImode 1). The hypervisor must then drive `line` high, or
    /// [pulse](msi_types::SetLine::pulse) the line if the interrupt is edge-triggered. The
    /// hypervisor doesn't have to drive the line low: if the physical input is still high after the
    /// deactivation, the physical interrupt fires again. The virtual interrupt is then pending
    /// again, even if the guest made it edge-triggered: the hypervisor cannot tell whether the
    /// input has fallen in between. A linked line is low until the physical interrupt fires. A
    /// [`LineObserver`](msi_types::LineObserver) isn't notified of linked interrupts.
    ///
    /// If the physical input falls before the guest has acknowledged the interrupt, the hypervisor
    /// isn't notified, so the model [reads the level](PhysicalInterrupts::level) before the
    /// interrupt is signaled, after an exit in which the guest did not acknowledge it, and when the
    /// guest reads whether it is pending. If the input has fallen, the virtual interrupt is no
    /// longer pending, and the model deactivates the physical interrupt.
    ///
    /// If the guest makes the interrupt pending or active only by register writes, that state
    /// doesn't affect the physical interrupt. A system reset keeps links, and deactivates each
    /// physical interrupt that was active on behalf of the guest. [Saved
    /// states](crate::saved_state) don't contain links: the destination must link its own physical
    /// interrupts, which then fire if their inputs are high, and the source must
    /// [unlink](Self::unlink) its own physical interrupts.
    ///
    /// # Errors
    /// [`LinkError`] if the machine doesn't have this line, `physical` is not a PPI or SPI, or no
    /// [`PhysicalInterrupts`] is registered.
    pub fn link(&self, line: Line, physical: IntId) -> Result<(), LinkError> {
        self.wired.link(line, Some(physical))
    }

    /// Removes a link. If the physical interrupt was active on behalf of the guest, it is
    /// deactivated, but the state of the virtual interrupt doesn't change, so the hypervisor must
    /// drive the line from then on. If a vCPU has the
    /// virtual interrupt in a list register, that vCPU is kicked, but until it has exited, its
    /// guest may still deactivate the physical interrupt.
    ///
    /// # Errors
    /// [`LinkError`] if the machine doesn't have this line, or no [`PhysicalInterrupts`] is
    /// registered. Removing a link that does not exist is not an error.
    pub fn unlink(&self, line: Line) -> Result<(), LinkError> {
        self.wired.link(line, None)
    }

    /// Returns `true` if a line's physical interrupt is active on behalf of the guest. A hypervisor
    /// that moves vCPUs between CPUs must call this method while the vCPU is outside the guest.
    ///
    /// A linked PPI is active on a single CPU. When the hypervisor unloads the vCPU from a CPU, it
    /// must deactivate the PPI there regardless of this result, because another vCPU may have just
    /// ended the interrupt. When the hypervisor loads the vCPU on a CPU, it must first direct
    /// [`PhysicalInterrupts::deactivate`] to that CPU. The hypervisor then makes the PPI active on
    /// that CPU if this method returns `true`, calls the method again, and deactivates the PPI if
    /// the result is now `false`.
    pub fn is_physical_active(&self, line: Line) -> bool {
        self.wired.is_physical_active(line)
    }

    /// Makes a line's interrupt pending, as a guest does by `ISPENDR`: until the guest acknowledges
    /// it or clears the pending state, whatever its trigger and the level of the line. This is for
    /// hypervisors that report an interrupt as an event, which
    /// [`pulse`](msi_types::SetLine::pulse) would lose if the guest configured it as
    /// level-sensitive. Returns `Pending`, or `NoDoorbell` if the machine doesn't have this line.
    ///
    /// Context: any.
    pub fn set_pending(&self, line: Line) -> Delivery {
        line_delivery(self.wired.change_input(line, |state| state.with_latch(true)))
    }

    /// Returns `true` if the address lies in one of the model's [regions](Self::regions).
    pub fn claims(&self, address: u64) -> bool {
        self.addresses.region(address).is_some()
    }

    /// Returns `true` if a read at this address shows the pending or active state of interrupts
    /// that may be in list registers. The read returns their state at their vCPUs' last guest
    /// entries: see [`ListRegisterVcpu`](crate::ListRegisterVcpu).
    pub fn shows_listed_state(&self, address: u64) -> bool {
        self.frame_at(address).is_some_and(|(frame, offset)| frame.shows_listed_state(offset))
    }

    /// Returns the regions that the model claims, in address order.
    pub fn regions(&self) -> &[Region] {
        self.addresses.regions()
    }

    /// Returns the doorbell for the ITS at this index in [`VgicConfig::its`]. The ITS's devices
    /// send their messages to this doorbell.
    pub fn its(&self, index: usize) -> Option<Arc<dyn SignalMsi<DeviceId>>> {
        let its = Arc::clone(self.its.get(index)?);
        Some(its)
    }

    /// Does a piece of the work that accesses deferred: commands beyond an ITS's budget
    /// ([`work_per_access`](crate::its::ItsConfig::work_per_access)), and changes that affect all
    /// mappings.
    ///
    /// A VMM that runs vCPUs doesn't have to call this, because
    /// [`Vcpu::inputs`](crate::Vcpu::inputs), [`prepare_to_sleep`](crate::Vcpu::prepare_to_sleep),
    /// [`enter_guest`](crate::Vcpu::enter_guest) and
    /// [`ListRegisterVcpu::enter`](crate::ListRegisterVcpu::enter) each do a piece. While work
    /// remains, vCPUs don't sleep and are kicked as they enter the guest, and one vCPU that is
    /// already asleep or in the guest is kicked. The method is meant for VMMs without vCPUs, and
    /// for idle threads.
    ///
    /// A call also resumes work that was waiting for heap memory ([`FaultReason::OutOfMemory`]).
    pub fn poll(&self) -> Progress {
        self.do_piece();
        Progress::done(!self.has_work())
    }

    /// Returns `true` if accesses, or commands that waited for list registers, have left work. A
    /// vCPU that sleeps or enters the guest then does a piece, which [`poll`](Self::poll)
    /// describes.
    pub fn has_work(&self) -> bool {
        self.wakeup.has_work()
    }

    /// Does a piece of the deferred work, unless there is none or another thread is already doing
    /// it.
    #[inline]
    pub(crate) fn go_on(&self) {
        if self.has_work() {
            self.do_piece();
        }
    }

    #[cold]
    fn do_piece(&self) {
        let has_ended_recall = self.wakeup.take_ended_recall();
        let mut is_busy = self.lpis.as_ref().is_some_and(|lpis| !lpis.try_advance_registers());
        for its in &self.its {
            is_busy |= !its.try_poll(has_ended_recall);
        }
        if has_ended_recall && is_busy {
            self.wakeup.note_ended_recall();
        }
    }

    /// Returns the command faults at the ITS with this index in [`VgicConfig::its`].
    pub fn command_faults(&self, index: usize) -> Option<CommandFaultLog> {
        self.its.get(index).map(|its| its.command_faults())
    }

    /// Returns the log of guest errors. If a guest misuses its controller and doesn't receive
    /// interrupts, this log is the only place to find out why, so VMMs should print the faults that
    /// [`EventLog::drain`] returns.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Returns the configuration from which this virtual GIC was created.
    pub fn config(&self) -> &VgicConfig {
        &self.config
    }

    pub(crate) fn wired(&self) -> &Wired {
        &self.wired
    }

    /// Returns the offset of an address within the distributor, the frame that guests access most,
    /// or `None` if the address lies elsewhere.
    #[inline]
    fn distributor_offset(&self, address: u64) -> Option<u32> {
        let offset = u32::try_from(address.wrapping_sub(self.config.distributor)).ok()?;
        (u64::from(offset) < gicd::FRAME_SIZE).then_some(offset)
    }

    /// Returns the frame at an address, and the offset within the frame.
    #[inline]
    pub(crate) fn frame_at(&self, address: u64) -> Option<(FrameAt<'_>, u32)> {
        self.addresses.frame_at(&self.config, &self.its, address)
    }

    /// Returns the redistributor of a vCPU, or `None` if the machine doesn't have that vCPU.
    pub(crate) fn redistributor_of(&self, cpu: Cpu) -> Option<Redistributor<'_>> {
        Some(Redistributor {
            cpu,
            config: &self.config,
            registers: self.redistributors.get(cpu.index())?,
            private: self.wired.private(cpu)?,
            wired: &self.wired,
            lpis: self.lpis.as_deref(),
            events: &self.events,
        })
    }

    pub(crate) fn mbi_alias(&self, base: u64) -> Mbi<'_> {
        let frame = RegisterFrame::MbiAlias(base);
        Mbi { config: &self.config, wired: &self.wired, events: &self.events, frame }
    }

    pub(crate) fn v2m<'a>(&'a self, config: &'a V2mConfig) -> V2m<'a> {
        V2m { config, wired: &self.wired, events: &self.events }
    }

    pub(crate) fn distributor(&self) -> Distributor<'_> {
        Distributor { config: &self.config, wired: &self.wired, events: &self.events }
    }
}

fn line_delivery(state: Option<InterruptWord>) -> Delivery {
    match state {
        Some(state) if state.pending() => Delivery::Pending,
        Some(_) => Delivery::Blocked,
        None => Delivery::NoDoorbell,
    }
}
