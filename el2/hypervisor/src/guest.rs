//! A guest's machine: its memory, its GIC, and its vCPUs while no CPU has them.

use crate::controller::Controller;
use crate::exits::{self, Exits};
use crate::faults::Faults;
use crate::gic::Gic;
use crate::moving;
use crate::pci::Pci;
use crate::pl011::Pl011;
use crate::power::{Power, Start};
use crate::psci::End;
use crate::scheduler::{self, Entity, VcpuId};
use crate::standstill::Gate;
use crate::tables::{Memory, Stage, Tables};
use crate::vcpu::Vcpu;
use crate::virtual_interface::Hardware;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use gic_arch::Affinity;
use image_rt::cpu::MAX_CPUS;
use image_rt::lock::IrqMutex;
use image_rt::{cpu, power, println};
use msi_types::Cpu;
use spin::Once;
use vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig};

/// The PL011 of `virt`, and its SPI; each guest has one there.
pub(crate) const UART: Range<u64> = 0x0900_0000..0x0900_1000;
pub(crate) const UART_SPI: u32 = 33;

static GUESTS: Once<Box<[Guest]>> = Once::new();

/// The guests; none before [`install`].
pub(crate) fn guests() -> &'static [Guest] {
    GUESTS.get().map_or(&[], |guests| guests)
}

/// Makes the guests known to everybody.
pub(crate) fn install(guests: Vec<Guest>) {
    GUESTS.call_once(|| guests.into_boxed_slice());
}

/// The number of a guest's address space: its VMID, of 8 bits, which is never 0.
pub(crate) const fn space(guest: usize) -> u8 {
    guest as u8 + 1
}

/// A guest's machine, as the loader wants it.
#[derive(Clone, Debug)]
pub(crate) struct GuestConfig {
    /// Index into [`guests`].
    pub(crate) number: usize,
    pub(crate) ram: Range<u64>,
    pub(crate) vcpus: u16,
    pub(crate) uart: Uart,
    /// The controller of messages that it gets.
    pub(crate) controller: Controller,
}

/// The guest's UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Uart {
    /// The machine's.
    Own,
    /// A part of it.
    Shared,
}

/// A guest.
pub(crate) struct Guest {
    pub(crate) number: usize,
    gic: Arc<Gic>,
    pub(crate) power: Power,
    pub(crate) gate: Gate,
    pub(crate) pci: Option<Pci>,
    /// `None`: it has the machine's to itself.
    pub(crate) uart: Option<Pl011>,
    /// `VTTBR_EL2`.
    pub(crate) vttbr: u64,
    /// By vCPU.
    pub(crate) entities: Box<[Entity]>,
    /// Those that no CPU has.
    vcpus: Box<[IrqMutex<Option<Vcpu>>]>,
    /// By CPU, the vCPU that it had last: 1 more than its number.
    last_here: [AtomicU32; MAX_CPUS],
    pub(crate) exits: Exits,
    faults: Faults,
    end: Once<End>,
}

impl Guest {
    /// A machine, with what PCI functions `assign` gives it.
    pub(crate) fn new(config: GuestConfig, assign: impl FnOnce(&Arc<Gic>) -> Option<Pci>) -> Self {
        let GuestConfig { number, ram, vcpus: cpus, uart, controller } = config;
        let mut stage2 = Tables::new(Stage::Two);
        stage2.map(ram.clone(), Memory::Ram);
        if uart == Uart::Own {
            stage2.map(UART, Memory::Device);
        }
        // List registers have the priority bits of the machine's virtual interface.
        let priority_bits = Hardware::here().vtr.pri_bits_minus_one() + 1;
        let config = VgicConfig::new(cpus).with_priority_bits(priority_bits);
        // The hypervisor is the guests' firmware: it wakes redistributors as TF-A does.
        let config = controller.added_to(config.with_awake_redistributors(true));
        let (gic, vcpus) = Gic::new(number, ram, uart, config);
        let pci = assign(&gic);
        for page in pci.iter().flat_map(Pci::memory) {
            stage2.map(page, Memory::Device);
        }
        let vcpus = vcpus
            .into_iter()
            .map(|interrupts| IrqMutex::new(Some(Vcpu { interrupts, registers: None })));
        Self {
            number,
            gic,
            power: Power::new(cpus.into()),
            gate: Gate::new(cpus.into()),
            pci,
            uart: (uart == Uart::Shared).then(|| Pl011::new(number)),
            vttbr: stage2.leak() | u64::from(space(number)) << 48,
            entities: (0..cpus).map(|_| Entity::new()).collect(),
            vcpus: vcpus.collect(),
            last_here: [const { AtomicU32::new(0) }; MAX_CPUS],
            exits: Exits::default(),
            faults: Faults::default(),
            end: Once::new(),
        }
    }

    /// The GIC up to the next move.
    pub(crate) fn vgic(&self) -> &Vgic {
        self.gic.current()
    }

    /// Takes a vCPU for the CPU that has it.
    pub(crate) fn take_vcpu(&self, cpu: Cpu) -> Option<Vcpu> {
        self.vcpus.get(cpu.index())?.with(Option::take)
    }

    /// Rebuilds the GIC, as a move does.
    ///
    /// # Safety
    /// No CPU has one of the vCPUs; all CPUs but this one stand still.
    pub(crate) unsafe fn rebuild_interrupts(&self) {
        let cpus = || (0..self.entities.len() as u32).map(Cpu::new);
        let taken = cpus().map(|cpu| self.take_vcpu(cpu).expect("no CPU has a vCPU"));
        let (vcpus, registers): (Vec<_>, Vec<_>) =
            taken.map(|vcpu| (vcpu.interrupts, vcpu.registers)).unzip();
        // SAFETY: the caller's promise.
        let vcpus = unsafe { self.gic.rebuild(vcpus) };
        for ((cpu, interrupts), registers) in cpus().zip(vcpus).zip(registers) {
            self.put_vcpu(cpu, Vcpu { interrupts, registers });
            // The new GIC does not know who waits.
            self.kick(cpu);
        }
    }

    /// Puts a vCPU aside until a CPU has it again.
    pub(crate) fn put_vcpu(&self, cpu: Cpu, vcpu: Vcpu) {
        if let Some(place) = self.vcpus.get(cpu.index()) {
            place.with(|place| *place = Some(vcpu));
        }
    }

    /// Makes a vCPU leave guest code, or look for work.
    pub(crate) fn kick(&self, cpu: Cpu) {
        scheduler::kick(VcpuId { guest: self.number, cpu });
    }

    /// The CPU that has a vCPU.
    pub(crate) fn loaded_at(&self, cpu: Cpu) -> Option<Cpu> {
        self.entities.get(cpu.index())?.loaded_at()
    }

    /// Starts a vCPU. Returns false if it is on already.
    pub(crate) fn start(&self, cpu: Cpu, start: Start) -> bool {
        let starts = self.power.request(cpu, start);
        if starts {
            self.kick(cpu);
        }
        starts
    }

    /// Was the vCPU the last of this guest's on the CPU that executes this? Now it is.
    pub(crate) fn ran_last_here(&self, vcpu: Cpu) -> bool {
        let last = &self.last_here[cpu::current()];
        last.swap(vcpu.get() + 1, Relaxed) == vcpu.get() + 1
    }

    /// Something was typed: for a guest whose UART is not the machine's.
    pub(crate) fn type_in(&self, byte: u8) {
        if let Some(uart) = &self.uart {
            uart.type_in(self.vgic(), byte);
        }
    }

    /// Prints the guest's new mistakes.
    pub(crate) fn print_faults(&self) {
        self.faults.print(Name(self.number), self.vgic().events());
    }

    /// The end of the machine.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// Ends the machine: its vCPUs run no more, its functions send no more. With the last guest
    /// the hypervisor ends.
    pub(crate) fn end_by(&self, end: End) {
        if self.end().is_some() || *self.end.call_once(|| end) != end {
            return;
        }
        self.pci.iter().for_each(Pci::stop);
        (0..self.entities.len() as u32).map(Cpu::new).for_each(|cpu| self.kick(cpu));
        let name = Name(self.number);
        match end {
            End::Off => println!("hypervisor: {name} turned its machine off"),
            End::SystemError => println!("hypervisor: {name}'s machine failed with an SError"),
            End::Reset => println!("hypervisor: {name} reset its machine"),
        }
        if guests().iter().all(|guest| guest.end().is_some()) {
            moving::report();
            exits::report();
            power::system_off();
        }
    }

    /// The vCPU whose `MPIDR_EL1` this is.
    pub(crate) fn cpu_of(&self, mpidr: u64) -> Option<Cpu> {
        let affinity = Affinity::from_mpidr(mpidr);
        let mut cpus = (0..).zip(&self.vgic().config().cpus);
        cpus.find(|(_, cpu)| cpu.affinity == affinity).map(|(index, _)| Cpu::new(index))
    }

    /// `MPIDR_EL1` of a vCPU.
    pub(crate) fn mpidr(&self, cpu: Cpu) -> u64 {
        self.vgic().config().cpus.get(cpu.index()).map_or(0, |cpu| cpu.affinity.mpidr())
    }
}

/// A guest's name on the console: the only one needs no number.
#[derive(Clone, Copy, Debug)]
struct Name(usize);

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match guests() {
            [_] => f.write_str("the guest"),
            _ => write!(f, "guest {}", self.0),
        }
    }
}

/// The guest's RAM: RAM of the machine at the same addresses, which the image has mapped and does
/// not use otherwise.
pub(crate) struct Ram(pub(crate) Range<u64>);

impl Ram {
    /// The pointer to a range, if it is RAM.
    fn at(&self, address: u64, bytes: usize) -> Result<*mut u8, MemoryFault> {
        let end = address.checked_add(bytes as u64);
        let inside = address >= self.0.start && end.is_some_and(|end| end <= self.0.end);
        let pointer = core::ptr::with_exposed_provenance_mut(address as usize);
        if inside { Ok(pointer) } else { Err(MemoryFault { address }) }
    }
}

impl GuestMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let from = self.at(address, bytes.len())?;
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: `at` checked the range; the guest may write it at any time.
            *word = unsafe { from.cast::<[u8; 8]>().add(index).read_volatile() };
        }
        let done = words.len() * 8;
        for (offset, byte) in rest.iter_mut().enumerate() {
            // SAFETY: as above.
            *byte = unsafe { from.add(done + offset).read_volatile() };
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let to = self.at(address, bytes.len())?;
        let (words, rest) = bytes.as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            // SAFETY: as above.
            unsafe { to.cast::<[u8; 8]>().add(index).write_volatile(*word) };
        }
        let done = words.len() * 8;
        for (offset, byte) in rest.iter().enumerate() {
            // SAFETY: as above.
            unsafe { to.add(done + offset).write_volatile(*byte) };
        }
        Ok(())
    }

    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        let from: *const u64 = self.at(address, 8)?.cast();
        if !from.is_aligned() {
            let mut bytes = [0; 8];
            self.read(address, &mut bytes)?;
            return Ok(u64::from_le_bytes(bytes));
        }
        // SAFETY: as above, and it is aligned.
        Ok(u64::from_le(unsafe { from.read_volatile() }))
    }

    fn write_u64(&self, address: u64, word: u64) -> Result<(), MemoryFault> {
        let to: *mut u64 = self.at(address, 8)?.cast();
        if !to.is_aligned() {
            return self.write(address, &word.to_le_bytes());
        }
        // SAFETY: as above, and it is aligned.
        unsafe { to.write_volatile(word.to_le()) };
        Ok(())
    }
}
