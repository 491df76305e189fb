//! A virtual machine on Linux's KVM.
//!
//! `unsafe` is needed because the kernel accesses guest memory, which lives as long as the machine,
//! and writes attribute values to the addresses that this program passes. In addition, the guest's
//! program is written in assembly ([`program`]).
#![expect(unsafe_code, reason = "the kernel accesses memory that is passed to it")]

mod bare;
mod descriptors;
mod program;

pub use descriptors::{Descriptors, snapshot};

use crate::layout::{ITS, LEVEL_LINE, OPERATIONS, PROGRAM, RAM, RAM_BYTES, REPORT, SPECIAL};
use crate::machine::NEWEST;
use crate::memory::{self, Ram};
use crate::{Failure, Machine, Operation};
use bare::BareMachine;
use descriptors::snapshot_cpus;
use gic_arch::gits;
use kvm_bindings::{
    KVM_MP_STATE_STOPPED, KVM_MSI_VALID_DEVID, kvm_msi, kvm_userspace_memory_region,
};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use msi_types::{Delivery, DeviceId, EventId, Level};
use program::Entry;
use std::ops::Range;
use std::sync::Arc;
use vgic::GuestMemory as _;
use vgic_kvm::abi::{Attribute, Errno};
use vgic_kvm::snapshot::{KvmAttributes as _, KvmSnapshot};
use vgic_kvm::{KvmDevice, KvmExplainer};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// `KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE`: `struct user_pt_regs`, indexed in 32-bit
/// words.
const CORE_REGISTER: u64 = 0x6030_0000_0010_0000;
/// Index of the program counter in `struct user_pt_regs`. The program counter follows x0 to x30 and
/// the stack pointer.
const PC: u64 = 32;
/// `EBUSY`: the ITS or the redistributor is disabled.
const BUSY: i32 = 16;
/// `EINTR`: a signal asked the vCPU to stop running.
const INTERRUPTED: i32 = 4;
/// `KVM_IRQ_LINE`: the number is the INTID of an SPI.
const SPI_LINE: u32 = 1 << 24;

/// A virtual machine on KVM.
#[derive(Debug)]
pub struct KvmMachine {
    cpus: Vec<VcpuFd>,
    devices: Descriptors,
    vm: Arc<VmFd>,
    ram: Ram,
}

impl KvmMachine {
    /// Creates a machine whose GIC and ITSes are in their power-on state.
    pub fn new() -> Result<Self, Failure> {
        Self::at_revision(NEWEST)
    }

    /// Creates a machine whose GIC has this revision.
    pub fn at_revision(revision: u8) -> Result<Self, Failure> {
        let all = RAM..RAM + RAM_BYTES as u64;
        Self::with(revision, std::slice::from_ref(&all))
    }

    /// Creates a machine whose guest has only these ranges of memory. The ranges must consist of
    /// whole pages, and must include the program and its operations.
    pub fn with_memory(ranges: &[Range<u64>]) -> Result<Self, Failure> {
        Self::with(NEWEST, ranges)
    }

    fn with(revision: u8, ranges: &[Range<u64>]) -> Result<Self, Failure> {
        let BareMachine { cpus, devices, vm } = BareMachine::new(revision)?;
        let ram = memory::ram()?;
        for (slot, range) in (0..).zip(ranges) {
            lend(&vm, &ram, slot, range)?;
        }
        ram.write(PROGRAM, program::bytes())?;
        Ok(Self { cpus, devices, vm: Arc::new(vm), ram })
    }

    /// Returns KVM's virtual machine, so that interrupts can be routed to it.
    pub fn vm(&self) -> Arc<VmFd> {
        self.vm.clone()
    }

    /// Runs a part of the guest's program on a vCPU, and returns its report.
    fn execute(
        &mut self,
        cpu: u16,
        entry: Entry,
        registers: &[(u64, u64)],
    ) -> Result<u32, Failure> {
        self.start(cpu, entry, registers)?;
        let report = self.report(cpu)?;
        self.settle(cpu)?;
        Ok(report)
    }

    /// Runs the guest's program on a vCPU until the program stores a report.
    fn report(&mut self, cpu: u16) -> Result<u32, Failure> {
        match self.cpu(cpu)?.run()? {
            VcpuExit::MmioWrite(REPORT, &[a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
            other => Err(format!("unexpected exit of vCPU {cpu}: {other:?}").into()),
        }
    }

    /// Starts the program at `entry`, on a vCPU that has stopped after storing a report.
    fn start(&mut self, cpu: u16, entry: Entry, registers: &[(u64, u64)]) -> Result<(), Failure> {
        let cpu = self.cpu(cpu)?;
        for (index, value) in registers.iter().chain(&[(4, REPORT), (PC, entry.address())]) {
            cpu.set_one_reg(CORE_REGISTER | (2 * index), &value.to_le_bytes())?;
        }
        Ok(())
    }

    /// Lets the vCPU complete the store that made it exit.
    fn settle(&mut self, cpu: u16) -> Result<(), Failure> {
        let cpu = self.cpu(cpu)?;
        cpu.set_kvm_immediate_exit(1);
        let outcome = cpu.run().map(|_| ());
        cpu.set_kvm_immediate_exit(0);
        match outcome {
            Err(error) if error.errno() == INTERRUPTED => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => Err("a vCPU ran although it was asked not to".into()),
        }
    }

    fn cpu(&mut self, cpu: u16) -> Result<&mut VcpuFd, Failure> {
        self.cpus
            .get_mut(usize::from(cpu))
            .ok_or_else(|| format!("vCPU {cpu} does not exist").into())
    }

    /// Takes a snapshot through the machine's file descriptors.
    pub fn snapshot(&self) -> Result<KvmSnapshot, Failure> {
        snapshot(&self.devices, &self.cpus, &self.ram)
    }

    /// Returns what explains interrupts of this machine while no vCPU runs.
    pub fn explainer(&self) -> Result<KvmExplainer<Descriptors>, Failure> {
        let (cpus, its) = (snapshot_cpus(&self.cpus)?, self.devices.its.len());
        Ok(KvmExplainer::new(self.devices.clone(), cpus, its, Arc::new(self.ram.clone())))
    }
}

impl Machine for KvmMachine {
    fn ram(&self) -> &Ram {
        &self.ram
    }

    fn run(&mut self, cpu: u16, operations: &[Operation]) -> Result<Vec<u64>, Failure> {
        let encoded = operations.iter().map(|operation| operation.encode());
        let list: Vec<u8> = encoded.chain([Operation::END]).flatten().collect();
        self.ram.write(OPERATIONS, &list)?;
        self.execute(cpu, Entry::Operate, &[(0, OPERATIONS)])?;
        let values = (OPERATIONS + 16..).step_by(Operation::BYTES);
        let read = operations.iter().zip(values).filter(|(it, _)| it.written.is_none());
        read.map(|(_, address)| Ok(self.ram.read_u64(address)?)).collect()
    }

    fn configure(&mut self, cpu: u16, mask: u64, binary_point: u64) -> Result<(), Failure> {
        self.execute(cpu, Entry::Configure, &[(0, mask), (1, binary_point)]).map(drop)
    }

    fn signal(
        &mut self,
        its: usize,
        device: DeviceId,
        event: EventId,
    ) -> Result<Delivery, Failure> {
        let doorbell =
            ITS.get(its).ok_or("the ITS does not exist")? + u64::from(gits::TRANSLATER.offset());
        let message = kvm_msi {
            address_lo: u32::try_from(doorbell)?,
            data: event.get(),
            flags: KVM_MSI_VALID_DEVID,
            devid: device.get(),
            ..Default::default()
        };
        match self.vm.signal_msi(message) {
            Ok(0) => Ok(Delivery::Blocked),
            Ok(_) => Ok(Delivery::Pending),
            Err(error) if error.errno() == BUSY => Ok(Delivery::Blocked),
            Err(error) => Err(error.into()),
        }
    }

    fn drive(&mut self, spi: u32, level: Level) -> Result<(), Failure> {
        Ok(self.vm.set_irq_line(SPI_LINE | spi, level == Level::High)?)
    }

    fn take(&mut self, cpu: u16) -> Result<u32, Failure> {
        self.execute(cpu, Entry::Take, &[])
    }

    fn end(&mut self, cpu: u16, intid: u32) -> Result<(), Failure> {
        self.execute(cpu, Entry::End, &[(0, intid.into())]).map(drop)
    }

    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<u32>, Failure> {
        self.start(cpu, Entry::Acknowledge, &[])?;
        let mut intids = Vec::new();
        loop {
            match self.report(cpu)? {
                SPECIAL..1024 => break,
                intid => {
                    intids.push(intid);
                    if intid == LEVEL_LINE {
                        self.drive(intid, Level::Low)?;
                    }
                }
            }
        }
        self.settle(cpu)?;
        Ok(intids)
    }

    fn stopped(&self, cpu: u16) -> Result<Option<bool>, Failure> {
        let cpu = self.cpus.get(usize::from(cpu)).ok_or("the vCPU does not exist")?;
        Ok(Some(cpu.get_mp_state()?.mp_state == KVM_MP_STATE_STOPPED))
    }

    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        self.devices.get(device, attribute)
    }

    fn has(&mut self, device: KvmDevice, attribute: Attribute) -> Result<(), Errno> {
        self.devices.has(device, attribute)
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        self.devices.set(device, attribute, value)
    }
}

fn lend(vm: &VmFd, ram: &Ram, slot: u32, range: &Range<u64>) -> Result<(), Failure> {
    let length = usize::try_from(range.end - range.start)?;
    // Fails if the range is outside of the machine's RAM.
    let host = ram.0.get_slice(GuestAddress(range.start), length)?.ptr_guard_mut();
    let region = kvm_userspace_memory_region {
        slot,
        guest_phys_addr: range.start,
        memory_size: length as u64,
        userspace_addr: host.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the region is in a mapping owned by `ram`, which the machine drops last. This program
    // holds no references into the mapping, because it accesses guest memory only through
    // `vm-memory`.
    unsafe { vm.set_user_memory_region(region) }?;
    Ok(())
}
