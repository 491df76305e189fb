//! The guest's machine: its memory, its GIC and the power of its vCPUs.

use crate::interrupts;
use crate::pci::Pci;
use crate::power::Power;
use crate::stage2::{Memory, Stage2};
use crate::standstill::Gate;
use crate::virtual_interface::Hardware;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use gic_arch::Affinity;
use image_rt::lock::IrqMutex;
use msi_types::Cpu;
use vgic::its::ItsConfig;
use vgic::{GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig};

/// The PL011 of `virt`, which the guest has to itself, and its SPI.
pub(crate) const UART: Range<u64> = 0x0900_0000..0x0900_1000;
pub(crate) const UART_SPI: u32 = 33;

/// The guest's ITS, where `virt` has one, too.
const ITS: u64 = 0x0808_0000;

/// A guest.
pub(crate) struct Guest {
    pub(crate) vgic: Arc<Vgic>,
    pub(crate) power: Power,
    pub(crate) gate: Gate,
    pub(crate) pci: Option<Pci>,
    /// `VTTBR_EL2`.
    pub(crate) vttbr: u64,
    /// What no CPU has taken yet.
    vcpus: Box<[IrqMutex<Option<Vcpu>>]>,
}

impl Guest {
    /// A machine with this RAM, a vCPU for each CPU, and what PCI functions `assign` gives it.
    pub(crate) fn new(
        ram: Range<u64>,
        cpus: u16,
        assign: impl FnOnce(&Arc<Vgic>) -> Option<Pci>,
    ) -> Self {
        let mut stage2 = Stage2::new();
        stage2.map(ram.clone(), Memory::Ram);
        stage2.map(UART, Memory::Device);
        let memory = Arc::new(Ram(ram));
        let kick = Arc::new(interrupts::kick);
        let its = Vec::from([ItsConfig::new(ITS)]);
        // List registers have the priority bits of the machine's virtual interface.
        let priority_bits = Hardware::here().vtr.pri_bits_minus_one() + 1;
        let config = VgicConfig::new(cpus).with_priority_bits(priority_bits);
        let config = config.with_lpi_id_bits(Some(16)).with_its(its);
        let (vgic, vcpus) = Vgic::new(config, memory, kick).expect("the guest's GIC");
        let pci = assign(&vgic);
        for page in pci.iter().flat_map(Pci::memory) {
            stage2.map(page, Memory::Device);
        }
        let vcpus: Vec<_> = vcpus.into_iter().map(|vcpu| IrqMutex::new(Some(vcpu))).collect();
        Self {
            vgic,
            power: Power::new(cpus.into()),
            gate: Gate::new(cpus.into()),
            pci,
            vttbr: stage2.leak(),
            vcpus: vcpus.into_boxed_slice(),
        }
    }

    /// Hands a vCPU to the CPU that runs it. Once.
    pub(crate) fn take_vcpu(&self, cpu: Cpu) -> Option<Vcpu> {
        self.vcpus.get(cpu.index())?.with(Option::take)
    }

    /// The vCPU whose `MPIDR_EL1` this is.
    pub(crate) fn cpu_of(&self, mpidr: u64) -> Option<Cpu> {
        let affinity = Affinity::from_mpidr(mpidr);
        let mut cpus = (0..).zip(&self.vgic.config().cpus);
        cpus.find(|(_, cpu)| cpu.affinity == affinity).map(|(index, _)| Cpu::new(index))
    }

    /// `MPIDR_EL1` of a vCPU.
    pub(crate) fn mpidr(&self, cpu: Cpu) -> u64 {
        self.vgic.config().cpus.get(cpu.index()).map_or(0, |cpu| cpu.affinity.mpidr())
    }
}

/// The guest's RAM: RAM of the machine at the same addresses, which the image has mapped and does
/// not use otherwise.
struct Ram(Range<u64>);

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
        for (offset, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: `at` checked the range; the guest may write it at any time.
            *byte = unsafe { from.add(offset).read_volatile() };
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let to = self.at(address, bytes.len())?;
        for (offset, byte) in bytes.iter().enumerate() {
            // SAFETY: as above.
            unsafe { to.add(offset).write_volatile(*byte) };
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
