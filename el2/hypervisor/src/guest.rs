//! A guest's machine: its memory, its GIC, and its vCPUs that aren't loaded on a CPU.

use crate::context::{self, Context, Registers};
use crate::controller::Controller;
use crate::exits::Exits;
use crate::faults::{Faults, Refused};
use crate::flash::{FLASH, Flash};
use crate::gic::Gic;
use crate::guest_smmu::GuestSmmu;
use crate::layout::{RTC, UART, UART_SPI, Uart};
use crate::moving;
use crate::pci::Pci;
use crate::pl011::Pl011;
use crate::power::{End, Power, Start};
use crate::ram::Ram;
use crate::scheduler::{self, VcpuId};
use crate::standstill::Gate;
use crate::tables::{Memory, Stage, TranslationTables, space};
use crate::trace;
use crate::virtual_interface::Hardware;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use doorbell_facts::{Ending, Fact, HypervisorFact};
use gic_arch::Affinity;
use image_rt::cpu::MAX_CPUS;
use image_rt::lock::IrqMutex;
use image_rt::{cpu, power, println};
use msi_types::Cpu;
use spin::Once;
use vgic::{ListRegisterVcpu, Vgic, VgicConfig};

static GUESTS: Once<Box<[Guest]>> = Once::new();
/// Number of guests that have ended and reported their end.
static REPORTED: AtomicUsize = AtomicUsize::new(0);

/// Returns the guests, or an empty slice before [`install`].
pub(crate) fn guests() -> &'static [Guest] {
    GUESTS.get().map_or(&[], |guests| guests)
}

/// Sets the list of guests.
pub(crate) fn install(guests: Vec<Guest>) {
    GUESTS.call_once(|| guests.into_boxed_slice());
}

/// Moves all guests that have not ended to new GICs. Returns their number.
///
/// # Safety
/// No vCPU may be loaded; all other CPUs must be paused in `moving::stand_still`.
pub(crate) unsafe fn move_all() -> usize {
    let running = guests().iter().filter(|guest| guest.end().is_none());
    // SAFETY: the caller guarantees that no vCPU is loaded and that the other CPUs are paused.
    running.map(|guest| unsafe { guest.rebuild_interrupts() }).count()
}

/// Prints the reports, and turns the machine off.
pub(crate) fn end_machine() -> ! {
    moving::report();
    for guest in guests() {
        guest.exits.report(guest.number);
    }
    trace::report();
    power::system_off()
}

/// Configuration of a guest's machine.
#[derive(Debug)]
pub(crate) struct GuestConfig {
    /// Index in [`guests`].
    pub(crate) number: usize,
    pub(crate) ram: Ram,
    pub(crate) vcpus: u16,
    pub(crate) uart: Uart,
    /// INTx lines that only this guest's functions use.
    pub(crate) lines: Vec<u32>,
    /// MSI controller of the guest.
    pub(crate) controller: Controller,
    /// The SMMU, if the guest owns it.
    pub(crate) smmu: Option<Arc<GuestSmmu>>,
    /// The flash, if the guest starts from it.
    pub(crate) flash: Option<Flash>,
}

/// A vCPU that is not loaded on a CPU.
pub(crate) struct Vcpu {
    pub(crate) interrupts: ListRegisterVcpu,
    /// Registers of the vCPU, or `None` if it is off.
    pub(crate) registers: Option<Registers>,
}

/// A guest and its machine.
pub(crate) struct Guest {
    pub(crate) number: usize,
    gic: Arc<Gic>,
    pub(crate) power: Power,
    pub(crate) gate: Gate,
    pub(crate) pci: Option<Pci>,
    pub(crate) flash: Option<Flash>,
    stage2: IrqMutex<TranslationTables>,
    /// The emulated UART, or `None` if the guest has the machine's UART.
    pub(crate) uart: Option<Pl011>,
    /// Value of `VTTBR_EL2`.
    pub(crate) vttbr: u64,
    /// vCPUs that are not loaded on a CPU. Boxed, because each load and each unload moves one.
    vcpus: Box<[IrqMutex<Option<Box<Vcpu>>>]>,
    /// For each CPU, the number of the vCPU that it last ran, plus 1.
    last_here: [AtomicU32; MAX_CPUS],
    pub(crate) exits: Exits,
    faults: Faults,
    end: Once<End>,
}

impl Guest {
    /// Creates a machine with the PCI functions that `assign` returns.
    pub(crate) fn new(config: GuestConfig, assign: impl FnOnce(&Arc<Gic>) -> Option<Pci>) -> Self {
        let GuestConfig { number, ram, vcpus: cpus, uart, controller, smmu, flash, .. } = config;
        let mut linked = config.lines;
        linked.extend((uart == Uart::Own).then_some(UART_SPI));
        let mut stage2 = TranslationTables::new(Stage::Two);
        stage2.map_ram(&ram);
        // The guest has as many priority bits as the machine's list registers.
        let priority_bits = Hardware::here().vtr.pri_bits_minus_one() + 1;
        let mut config = VgicConfig::new(cpus).with_priority_bits(priority_bits);
        if let Some(smmu) = &smmu {
            config = config.with_redistributors(Vec::from([smmu.redistributors()]));
        }
        // The hypervisor also acts as the guests' firmware: it wakes redistributors as TF-A does.
        let config = controller.added_to(config.with_awake_redistributors(true));
        let (gic, vcpus) = Gic::new(number, ram, linked, config);
        let pci = assign(&gic);
        let vcpus = vcpus
            .into_iter()
            .map(|interrupts| Box::new(Vcpu { interrupts, registers: None }))
            .map(|vcpu| IrqMutex::new(Some(vcpu)));
        Self {
            number,
            gic,
            power: Power::new(cpus.into()),
            gate: Gate::new(cpus.into()),
            pci,
            flash,
            uart: (uart == Uart::Shared).then(|| Pl011::new(number)),
            vttbr: stage2.root() | u64::from(space(number)) << 48,
            stage2: IrqMutex::new(stage2),
            vcpus: vcpus.collect(),
            last_here: [const { AtomicU32::new(0) }; MAX_CPUS],
            exits: Exits::default(),
            faults: Faults::default(),
            end: Once::new(),
        }
    }

    /// Returns the GIC, which is valid until the next move.
    pub(crate) fn vgic(&self) -> &Vgic {
        self.gic.current()
    }

    /// Returns the SPIs that are linked to the physical interrupts of the same number.
    pub(crate) fn linked(&self) -> &[u32] {
        &self.gic.linked
    }

    /// Returns the memory.
    pub(crate) fn ram(&self) -> &Ram {
        self.gic.ram()
    }

    /// Maps a page of a device, of flash, or of a function's memory that the guest has placed at
    /// `page`. Returns `None` if none is there, or if this access must trap.
    pub(crate) fn map_device_page(&self, page: u64, is_store: bool) -> Option<()> {
        // The lock keeps a page from being mapped after it was unmapped for a change.
        self.stage2.with(|stage2| {
            let (physical, memory) = self.device_page(page)?;
            let is_allowed = !is_store || memory == Memory::Device;
            is_allowed.then(|| stage2.map_page(page, physical, memory))
        })
    }

    fn device_page(&self, page: u64) -> Option<(u64, Memory)> {
        if FLASH.contains(&page) {
            return Some((self.flash.as_ref()?.page(page)?, Memory::Rom));
        }
        if RTC.contains(&page) {
            return Some((page, Memory::ReadOnlyDevice));
        }
        let pci = self.pci.as_ref();
        let smmu = pci.and_then(|pci| pci.smmu.as_ref());
        let is_own = UART.contains(&page) && self.uart.is_none()
            || smmu.is_some_and(|smmu| smmu.registers.contains(&page));
        let physical = if is_own { Some(page) } else { pci.and_then(|pci| pci.page(page)) };
        Some((physical?, Memory::Device))
    }

    /// Unmaps the flash after a bank has stopped to show its contents. A vCPU of this guest must be
    /// loaded on the calling CPU.
    pub(crate) fn unmap_flash(&self) {
        self.stage2.with(|stage2| {
            stage2.unmap_pages(&FLASH);
            context::forget_stage2();
        });
    }

    /// Unmaps the memory of all functions after the guest has moved one. A vCPU of this guest must
    /// be loaded on the calling CPU.
    pub(crate) fn unmap_devices(&self) {
        let Some(pci) = &self.pci else { return };
        self.stage2.with(|stage2| {
            pci.memory().for_each(|window| stage2.unmap_pages(&window));
            context::forget_stage2();
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
        let (vcpus, registers): (Vec<_>, Vec<_>) =
            taken.map(|vcpu| (vcpu.interrupts, vcpu.registers)).unzip();
        // SAFETY: the caller guarantees that no vCPU is loaded and that the other CPUs are paused.
        let vcpus = unsafe { self.gic.rebuild(vcpus) };
        for ((cpu, interrupts), registers) in cpus().zip(vcpus).zip(registers) {
            self.put_vcpu(cpu, Box::new(Vcpu { interrupts, registers }));
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

    /// Records that the vCPU runs on the calling CPU. Returns `true` if the same vCPU was also the
    /// last vCPU of this guest that ran on this CPU.
    pub(crate) fn ran_last_here(&self, vcpu: Cpu) -> bool {
        let last = &self.last_here[cpu::current()];
        last.swap(vcpu.get() + 1, Relaxed) == vcpu.get() + 1
    }

    /// Passes a byte of input to the guest's emulated UART, if it has one.
    pub(crate) fn type_in(&self, byte: u8) {
        if let Some(uart) = &self.uart {
            uart.type_in(self.vgic(), byte);
        }
    }

    /// Prints the guest's new faults.
    pub(crate) fn print_faults(&self) {
        self.faults.print(self.number, self.vgic().events());
    }

    /// Records that an instruction of the loaded vCPU is refused. Must be called before the
    /// exception is injected.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&self, context: &mut Context, refused: Refused) {
        let Context { pc, repeats, .. } = context;
        self.faults.refuse((self.number, &self.ram().guest), *pc, repeats, refused);
    }

    /// Returns how the machine ended, or `None` if it has not ended.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// Ends the machine: its vCPUs are no longer run, and its functions stop sending messages. The
    /// hypervisor ends with the last guest.
    pub(crate) fn end_by(&self, end: End) {
        let mut is_first = false;
        self.end.call_once(|| {
            is_first = true;
            end
        });
        if !is_first {
            return;
        }
        self.pci.iter().for_each(Pci::stop);
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
