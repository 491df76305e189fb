//! The guest's machine on KVM, and the threads of its vCPUs.

use crate::console::Console;
use crate::devicetree::devicetree;
use crate::failure::Failure;
use crate::function::Function;
use crate::kernel;
use crate::layout::{
    CPUS, DEVICETREE, DISTRIBUTOR, ECAM, INTERRUPTS, ITS, RAM, REDISTRIBUTORS, UART,
};
use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_DEV_ARM_VGIC_CTRL_INIT,
    KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_SYSTEM_EVENT_SHUTDOWN, KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V3_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
    kvm_vcpu_init,
};
use kvm_ioctls::{DeviceFd, Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Number of guest physical address bits.
const ADDRESS_BITS: u32 = 40;
/// `KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE`: `struct user_pt_regs`, indexed in 32-bit
/// words.
const CORE_REGISTER: u64 = 0x6030_0000_0010_0000;
/// Indexes in `struct user_pt_regs` of x0, and of the program counter, which follows x0 to x30 and
/// the stack pointer.
const X0: u64 = 0;
const PC: u64 = 2 * 32;
/// `EINTR` and `EAGAIN`: a signal has arrived, or another vCPU is turning this vCPU on.
const AGAIN: [i32; 2] = [4, 11];

/// The machine before its vCPUs have been started.
pub(crate) struct Machine {
    cpus: Vec<VcpuFd>,
    devices: Devices,
    _gic: [DeviceFd; 2],
}

impl Machine {
    /// Creates a machine that has the image at the start of its RAM. If `function` is given, it is
    /// passed through to the guest.
    pub(crate) fn new(image: &[u8], function: Option<&Path>) -> Result<Self, Failure> {
        let vm = Arc::new(Kvm::new()?.create_vm_with_ipa_size(ADDRESS_BITS)?);
        let bytes = RAM.end - RAM.start;
        let ranges = [(GuestAddress(RAM.start), usize::try_from(bytes)?)];
        // The kernel uses the memory until the program ends.
        let ram: &'static _ = Box::leak(Box::new(GuestMemoryMmap::<()>::from_ranges(&ranges)?));
        ram.write_slice(image, GuestAddress(RAM.start))?;
        ram.write_slice(&devicetree(function.is_some()), GuestAddress(DEVICETREE))?;
        kernel::lend_ram(&vm, ram, RAM.start, bytes)?;
        let cpus = (0..CPUS).map(|number| create_cpu(&vm, number)).collect::<Result<_, _>>()?;
        let gic = create_gic(&vm)?;
        let function = function.map(|path| Function::open(path, &vm, ram)).transpose()?;
        let console = Mutex::default();
        let devices = Devices { console, function: function.map(Mutex::new) };
        Ok(Self { cpus, devices, _gic: gic })
    }

    /// Runs until the guest powers the machine off. Each vCPU runs on its own host CPU.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (sender, ends) = mpsc::channel();
        let devices = Arc::new(self.devices);
        for (number, cpu) in self.cpus.into_iter().enumerate() {
            let (devices, sender) = (devices.clone(), sender.clone());
            thread::spawn(move || sender.send(run(number, cpu, &devices)));
        }
        ends.recv()?
    }
}

fn create_cpu(vm: &VmFd, number: u64) -> Result<VcpuFd, Failure> {
    let cpu = vm.create_vcpu(number)?;
    let mut init = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init)?;
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    if number > 0 {
        init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
    }
    cpu.vcpu_init(&init)?;
    for (register, value) in [(X0, DEVICETREE), (PC, RAM.start)] {
        cpu.set_one_reg(CORE_REGISTER | register, &value.to_le_bytes())?;
    }
    Ok(cpu)
}

/// Creates the GIC and its ITS.
fn create_gic(vm: &VmFd) -> Result<[DeviceFd; 2], Failure> {
    let gic = create(vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3)?;
    let its = create(vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS)?;
    for (device, group, attribute, value) in [
        (&gic, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, INTERRUPTS.into()),
        (&gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, DISTRIBUTOR.start),
        (&gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, REDISTRIBUTORS.start),
        (&gic, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0),
        (&its, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, ITS.start),
        (&its, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0),
    ] {
        let value: u64 = value;
        let addr = &raw const value as u64;
        device.set_device_attr(&kvm_device_attr {
            group,
            attr: attribute.into(),
            addr,
            flags: 0,
        })?;
    }
    Ok([gic, its])
}

fn create(vm: &VmFd, kind: u32) -> Result<DeviceFd, Failure> {
    let mut device = kvm_create_device { type_: kind, fd: 0, flags: 0 };
    Ok(vm.create_device(&mut device)?)
}

/// The devices that this program emulates. Accesses to their registers cause exits to it.
struct Devices {
    console: Mutex<Console>,
    function: Option<Mutex<Function>>,
}

impl Devices {
    fn read(&self, address: u64, data: &mut [u8]) {
        let function = self.function.as_ref().filter(|_| ECAM.contains(&address));
        if UART.contains(&address) {
            Console::read(address - UART.start, data);
        } else if let Some(function) = function {
            function.lock().unwrap_or_else(PoisonError::into_inner).read(address, data);
        } else {
            data.fill(0);
        }
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), Failure> {
        let function = self.function.as_ref().filter(|_| ECAM.contains(&address));
        if UART.contains(&address) {
            let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
            console.write(address - UART.start, data)
        } else if let Some(function) = function {
            function.lock().unwrap_or_else(PoisonError::into_inner).write(address, data)
        } else {
            Ok(())
        }
    }
}

/// Runs a vCPU on the host CPU that has the same number. If no such CPU exists, the vCPU may run on
/// every CPU.
fn run(number: usize, mut cpu: VcpuFd, devices: &Devices) -> Result<(), Failure> {
    let mut own = CpuSet::new();
    own.set(number);
    match sched_setaffinity(None, &own) {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    loop {
        match cpu.run() {
            Ok(VcpuExit::MmioRead(address, data)) => devices.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => devices.write(address, data)?,
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => return Ok(()),
            Err(error) if AGAIN.contains(&error.errno()) => {}
            other => return Err(format!("unexpected exit of vCPU {number}: {other:?}").into()),
        }
    }
}
