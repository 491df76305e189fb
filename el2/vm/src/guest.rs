//! A guest's machine: its memory, its GIC, its devices, and its vCPUs that aren't loaded on a CPU.

use crate::fair_lock::{FairLock, MAX_VCPUS};
use crate::faults::{Faults, Refused};
use crate::gic::Gic;
use crate::injection::Injection;
use crate::moving;
use crate::power::{End, Power};
use crate::recorder::Exits;
use crate::scheduler::{self, VcpuId};
use crate::standstill::Gate;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use doorbell_facts::{Ending, Fact, HypervisorFact};
use el2_cpu::{Context, Hardware, Memory, Ram, Registers, Start, TranslationTables, Vmid, Vttbr};
use gic_arch::{Affinity, gicr};
use image_rt::cpu::MAX_CPUS;
use image_rt::lock::IrqMutex;
use image_rt::{cpu, power, println};
use msi_types::Cpu;
use spin::Once;
use vgic::{AccessWidth, ListRegisterVcpu, Progress, Vgic, VgicConfig};

/// Bytes of a redistributor's frame. The registers before `WAKER`, and from `IDS` on, identify it.
const FRAME: u64 = 0x1_0000;
const WAKER: u64 = gicr::WAKER.offset() as u64;
const IDS: u64 = 0xffd0;
/// `GICR_CTLR.RWP`.
const RWP: u64 = 1 << 3;

static GUESTS: Once<Box<[Guest]>> = Once::new();
/// Number of guests that have ended and reported their end.
static REPORTED: AtomicUsize = AtomicUsize::new(0);

/// Returns the guests, or an empty slice before [`install`].
pub fn guests() -> &'static [Guest] {
    GUESTS.get().map_or(&[], |guests| guests)
}

/// Sets the list of guests.
pub(crate) fn install(guests: Vec<Guest>) {
    GUESTS.call_once(|| guests.into_boxed_slice());
}

/// Moves all guests that have not ended to new GICs, each in a call of `around`. Returns their
/// number.
///
/// # Safety
/// No vCPU may be loaded; all other CPUs must be paused in `moving::stand_still`.
pub(crate) unsafe fn move_all(around: fn(&Guest, &mut dyn FnMut())) -> usize {
    let running = guests().iter().filter(|guest| guest.end().is_none());
    // SAFETY: the caller guarantees that no vCPU is loaded and that the other CPUs are paused.
    running.map(|guest| around(guest, &mut || unsafe { guest.rebuild_interrupts() })).count()
}

/// Prints the reports, and turns the machine off.
fn end_machine() -> ! {
    moving::report();
    for guest in guests() {
        guest.print_faults();
        guest.exits.report(guest.number);
    }
    power::system_off()
}

/// Configuration of a guest's machine.
#[derive(Debug)]
pub struct GuestConfig {
    /// Index in [`guests`].
    pub number: usize,
    /// The guest's memory.
    pub ram: Ram,
    /// The guest's GIC. [`Guest::new`] sets the number of priority bits, and wakes the
    /// redistributors, as firmware does.
    pub gic: VgicConfig,
    /// INTIDs of the machine's SPIs that only this guest's devices assert. Each is linked to the
    /// guest's SPI of the same number.
    pub linked: Vec<u32>,
    /// If set, a redistributor has no power while its vCPU is off: it forgets its LPI tables, and
    /// aborts accesses except for reads of what identifies it (as a GIC-600 may, with TF-A).
    pub powered_by_cpus: bool,
}

/// The devices that a board gives to a guest. Addresses are guest physical.
///
/// The guest's memory and its GIC are not devices: accesses to them never get here. vCPUs may
/// access devices at the same time.
pub trait Devices: Send + Sync {
    /// Returns the physical page that a guest's access to `page` reaches without a trap. It stays
    /// mapped until [`Guest::unmap`]. Returns `None` if accesses must trap, or if no device is
    /// there. The guest must not be able to harm others through the page.
    fn page(&self, page: u64) -> Option<(u64, Memory)>;

    /// Handles a load. Returns `None` if no device is there.
    fn read(&self, guest: &Guest, address: u64, width: AccessWidth) -> Option<u64>;

    /// Handles a store, also to pages that are mapped for reads only. Returns `None` if no device
    /// is there.
    fn write(&self, guest: &Guest, address: u64, width: AccessWidth, value: u64) -> Option<()>;

    /// Looks for work, as requested by [`poll_after`](crate::poll_after). Must not wait for vCPUs.
    fn poll(&self) {}

    /// Stops devices from accessing memory and from signaling interrupts: the guest has ended.
    fn stop(&self);
}

/// A vCPU that is not loaded on a CPU.
pub(crate) struct Vcpu {
    pub(crate) interrupts: ListRegisterVcpu,
    /// Registers of the vCPU, or `None` if it is off.
    pub(crate) registers: Option<Registers>,
    /// Direct injection, or `None` if messages pass through the hypervisor.
    pub(crate) injection: Option<Arc<Injection>>,
}

/// A guest and its machine.
pub struct Guest {
    pub(crate) number: usize,
    gic: Arc<Gic>,
    pub(crate) power: Power,
    powered_by_cpus: bool,
    pub(crate) gate: Gate,
    pub(crate) lock: FairLock,
    pub(crate) devices: Box<dyn Devices>,
    stage2: IrqMutex<TranslationTables>,
    pub(crate) vttbr: Vttbr,
    /// vCPUs that are not loaded on a CPU. Boxed, because each load and each unload moves one.
    vcpus: Box<[IrqMutex<Option<Box<Vcpu>>>]>,
    /// For each CPU, the number of the vCPU that it last ran, plus 1.
    last_here: [AtomicU32; MAX_CPUS],
    pub(crate) exits: Exits,
    faults: Faults,
    end: Once<End>,
}

impl Guest {
    /// Creates a machine with the devices that `devices` returns.
    ///
    /// # Panics
    /// Panics if the GIC's configuration is not valid or has more than 63 vCPUs, if the number is
    /// too large for a VMID, or if memory is exhausted.
    pub fn new(config: GuestConfig, devices: impl FnOnce(&Arc<Gic>) -> Box<dyn Devices>) -> Self {
        let GuestConfig { number, ram, gic: config, linked, powered_by_cpus } = config;
        let cpus = config.cpus.len();
        assert!(cpus <= MAX_VCPUS, "a guest can have {MAX_VCPUS} vCPUs");
        let mut stage2 = TranslationTables::stage_2();
        stage2.map_ram(&ram);
        // The guest has as many priority bits as the machine's list registers.
        let priority_bits = Hardware::here().vtr.pri_bits_minus_one() + 1;
        // The hypervisor also acts as the guests' firmware: it wakes redistributors as TF-A does.
        let config = config.with_priority_bits(priority_bits).with_awake_redistributors(true);
        let (gic, vcpus) = Gic::new(number, ram, linked, config);
        let devices = devices(&gic);
        let vcpus = vcpus
            .into_iter()
            .map(|interrupts| Box::new(Vcpu { interrupts, registers: None, injection: None }))
            .map(|vcpu| IrqMutex::new(Some(vcpu)));
        Self {
            number,
            gic,
            power: Power::new(cpus),
            powered_by_cpus,
            gate: Gate::new(cpus),
            lock: FairLock::new(),
            devices,
            vttbr: stage2.vttbr(Vmid::of_guest(number).expect("the guest's number fits a VMID")),
            stage2: IrqMutex::new(stage2),
            vcpus: vcpus.collect(),
            last_here: [const { AtomicU32::new(0) }; MAX_CPUS],
            exits: Exits::default(),
            faults: Faults::new(cpus),
            end: Once::new(),
        }
    }

    /// Returns the GIC, which is valid until the next move.
    pub fn vgic(&self) -> &Vgic {
        self.gic.current()
    }

    /// Returns the SPIs that are linked to the physical interrupts of the same number.
    pub(crate) fn linked(&self) -> &[u32] {
        &self.gic.linked
    }

    /// Returns the memory.
    pub fn ram(&self) -> &Ram {
        self.gic.ram()
    }

    /// Maps the page that a device has at `page`. Returns `None` if there is none, or if this
    /// access must trap.
    pub(crate) fn map_device_page(&self, page: u64, is_store: bool) -> Option<()> {
        // The lock keeps a page from being mapped after it was unmapped for a change.
        self.stage2.with(|stage2| {
            let (physical, memory) = self.devices.page(page)?;
            let is_allowed = !is_store || memory.is_writable();
            is_allowed.then(|| stage2.map_page(page, physical, memory))
        })
    }

    /// Unmaps the pages of devices in these ranges of guest physical addresses, and in the blocks
    /// of 2 MiB around them, so that the guest's next accesses find the pages that
    /// [`Devices::page`] then returns. Must only be called by [`Devices::write`].
    pub fn unmap(&self, ranges: impl Iterator<Item = Range<u64>>) {
        self.stage2.with(|stage2| {
            ranges.for_each(|range| stage2.unmap_pages(&range));
            // A vCPU of this guest is loaded on this CPU.
            el2_cpu::forget_stage2();
        });
    }

    /// Takes a vCPU in order to load it. Returns `None` if it is already loaded.
    pub(crate) fn take_vcpu(&self, cpu: Cpu) -> Option<Box<Vcpu>> {
        self.vcpus.get(cpu.index())?.with(Option::take)
    }

    /// Replaces the GIC, as part of a move.
    ///
    /// # Safety
    /// None of the vCPUs may be loaded; all other CPUs must be paused in `moving::stand_still`.
    unsafe fn rebuild_interrupts(&self) {
        let cpus = || (0..self.vcpus.len() as u32).map(Cpu::new);
        let taken = cpus().map(|cpu| self.take_vcpu(cpu).expect("no vCPU is loaded"));
        let (vcpus, others): (Vec<_>, Vec<_>) =
            taken.map(|vcpu| (vcpu.interrupts, (vcpu.registers, vcpu.injection))).unzip();
        // SAFETY: the caller guarantees that no vCPU is loaded and that the other CPUs are paused.
        let vcpus = unsafe { self.gic.rebuild(vcpus) };
        for ((cpu, interrupts), (registers, injection)) in cpus().zip(vcpus).zip(others) {
            self.put_vcpu(cpu, Box::new(Vcpu { interrupts, registers, injection }));
            // The new GIC doesn't know which vCPUs wait, so kick them all.
            self.kick(cpu);
        }
    }

    /// Stores a vCPU until it is loaded again.
    pub(crate) fn put_vcpu(&self, cpu: Cpu, vcpu: Box<Vcpu>) {
        if let Some(place) = self.vcpus.get(cpu.index()) {
            place.with(|place| *place = Some(vcpu));
        }
    }

    /// Sets the direct injection of the vCPUs that are not loaded.
    pub(crate) fn inject_by(&self, injection: Option<&Arc<Injection>>) {
        for place in &self.vcpus {
            place.with(|vcpu| {
                if let Some(vcpu) = vcpu {
                    vcpu.injection = injection.cloned();
                }
            });
        }
    }

    /// Returns `true` if no vCPU is loaded.
    pub(crate) fn is_unloaded(&self) -> bool {
        self.vcpus.iter().all(|place| place.with(|vcpu| vcpu.is_some()))
    }

    /// Calls `leave`, in which a vCPU that is about to enter the guest or to sleep does a piece of
    /// the work that accesses have deferred. Returns `None` if there is work, but another vCPU
    /// holds the [lock](crate::fair_lock) that it needs; the vCPU must then try again.
    #[inline]
    pub(crate) fn do_work<R>(&self, leave: impl FnOnce() -> R) -> Option<R> {
        let has_work = self.vgic().has_work();
        if has_work && !self.lock.try_take_to_work() {
            return None;
        }
        let result = leave();
        if has_work {
            self.lock.release();
        }
        Some(result)
    }

    /// Kicks a vCPU: makes it leave guest mode, or wakes it from WFI.
    pub(crate) fn kick(&self, cpu: Cpu) {
        scheduler::kick(VcpuId { guest: self.number, cpu });
    }

    /// Starts a vCPU. Returns `false` if it is already on.
    pub(crate) fn start(&self, cpu: Cpu, start: Start) -> bool {
        let starts = self.power.request(cpu, start);
        if starts {
            self.kick(cpu);
        }
        starts
    }

    /// Returns the number of vCPUs that are on.
    pub(crate) fn vcpus_on(&self) -> usize {
        (0..self.vcpus.len() as u32).filter(|cpu| self.power.is_on(Cpu::new(*cpu))).count()
    }

    /// Returns the address of each redistributor, in the order of vCPUs.
    fn redistributors(&self) -> impl Iterator<Item = u64> {
        let regions = self.vgic().config().redistributors.iter();
        regions.flat_map(|it| (0..u64::from(it.count)).map(|at| it.base + at * it.stride))
    }

    /// Returns `false` if an access is to a redistributor that has no power. Kernels read what
    /// identifies each redistributor and `GICR_CTLR`, whether it has power or not.
    pub(crate) fn answers(&self, address: u64, is_read: bool) -> bool {
        let is_refused = |(base, cpu): (u64, u32)| {
            let offset = address.wrapping_sub(base);
            let identifies = offset < WAKER || (IDS..FRAME).contains(&offset);
            offset < 2 * FRAME && !(is_read && identifies) && !self.power.is_on(Cpu::new(cpu))
        };
        !self.powered_by_cpus || !self.redistributors().zip(0..).any(is_refused)
    }

    /// Takes power from the redistributor of a vCPU that is not loaded.
    pub(crate) fn cut_power(&self, cpu: Cpu) {
        let base = self.redistributors().nth(cpu.index());
        let Some(base) = base.filter(|_| self.powered_by_cpus) else { return };
        let ctlr = base + u64::from(gicr::CTLR.offset());
        let clear = |address, width| {
            while self.vgic().write(address, width, 0) == Ok(Progress::Unfinished) {}
        };
        clear(ctlr, AccessWidth::Word);
        // Registers of tables that are still in use ignore writes.
        while self.vgic().read(ctlr, AccessWidth::Word).is_ok_and(|value| value & RWP != 0) {}
        for register in [gicr::PROPBASER.offset(), gicr::PENDBASER.offset()] {
            clear(base + u64::from(register), AccessWidth::Double);
        }
    }

    /// Records that the vCPU runs on the calling CPU. Returns `true` if the same vCPU was also the
    /// last vCPU of this guest that ran on this CPU.
    pub(crate) fn ran_last_here(&self, vcpu: Cpu) -> bool {
        let last = &self.last_here[cpu::current()];
        last.swap(vcpu.get() + 1, Relaxed) == vcpu.get() + 1
    }

    /// Prints the guest's new faults.
    pub(crate) fn print_faults(&self) {
        self.faults.print(self.number, self.vgic().events());
    }

    /// Records that an instruction of the loaded vCPU is refused. Must be called before the
    /// exception is injected.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&self, context: &Context, refused: Refused) {
        self.faults.refuse((self.number, &self.ram().guest), context.pc, refused);
    }

    /// Returns how the machine ended, or `None` if it has not ended.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// Ends the machine: its vCPUs are no longer run, and its devices stop. The hypervisor ends
    /// with the last guest.
    pub(crate) fn end_by(&self, end: End) {
        let mut is_first = false;
        self.end.call_once(|| {
            is_first = true;
            end
        });
        if !is_first {
            return;
        }
        self.devices.stop();
        (0..self.vcpus.len() as u32).map(Cpu::new).for_each(|cpu| self.kick(cpu));
        let how = match end {
            End::Off => Ending::Off,
            End::Reset => Ending::Reset,
            End::SystemError => Ending::SystemError,
        };
        println!("{}", Fact::from(HypervisorFact::Ended { guest: self.number, how }));
        // Two guests may end at the same time. The one that reports last turns the machine off, so
        // that both reports are complete.
        if REPORTED.fetch_add(1, SeqCst) + 1 == guests().len() {
            end_machine();
        }
    }

    /// Returns the vCPU with this `MPIDR_EL1`.
    pub(crate) fn cpu_of(&self, mpidr: u64) -> Option<Cpu> {
        self.cpus_of(mpidr, 0).next()
    }

    /// Returns the vCPUs whose affinity is equal to that of `mpidr`, except for the levels below
    /// `level`, which must be less than 4.
    pub(crate) fn cpus_of(&self, mpidr: u64, level: u32) -> impl Iterator<Item = Cpu> {
        let instance = move |affinity: Affinity| affinity.packed() >> (8 * level);
        let wanted = instance(Affinity::from_mpidr(mpidr));
        let cpus = (0..).zip(&self.vgic().config().cpus);
        cpus.filter(move |(_, cpu)| instance(cpu.affinity) == wanted)
            .map(|(index, _)| Cpu::new(index))
    }

    /// Returns the `MPIDR_EL1` of a vCPU.
    pub(crate) fn mpidr(&self, cpu: Cpu) -> u64 {
        self.vgic().config().cpus.get(cpu.index()).map_or(0, |cpu| cpu.affinity.mpidr())
    }
}
