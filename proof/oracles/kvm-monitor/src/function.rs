//! A PCI function of the host, passed through by VFIO. The function has one memory region and an
//! MSI capability, which `irq-routing` emulates. VFIO signals the function's interrupt on an
//! eventfd, and KVM forwards it to the guest.

use crate::failure::Failure;
use crate::kernel;
use crate::layout::{ECAM, PCI_WINDOW};
use irq_routing::Pin;
use irq_routing::Sender;
use irq_routing::device_eventfds::DeviceEventfds;
use irq_routing::irqfd::{EventfdPoller, IrqfdThread};
use irq_routing::kvm::{KvmConfig, KvmRouter, MsiIrqfdSet, RustVmm};
use irq_routing::msi::{MsiCapability, MsiLayout};
use kvm_bindings::{kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO};
use kvm_ioctls::VmFd;
use msi_types::DeviceId;
use msi_types::pci::msi::{CAPABILITY_ID, Control};
use rustix::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioDeviceFd};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Address of the function on the guest's bus: device 1, function 0.
const ADDRESS: u16 = 1 << 3;
/// Offset of the function's configuration space in the guest's ECAM.
const PLACE: u64 = (ADDRESS as u64) << 12;
const CONFIG_BYTES: u64 = 0x1000;
/// Index of the configuration space in VFIO's list of regions (`VFIO_PCI_CONFIG_REGION_INDEX`).
const CONFIG_REGION: u32 = 7;
/// Registers in configuration space.
const COMMAND: u16 = 0x04;
const FIRST_BAR: u16 = 0x10;
const LAST_BAR: u16 = 0x24;
const EXPANSION_ROM: u16 = 0x30;
const CAPABILITIES: u16 = 0x34;
/// Bit in the command register: the function responds to memory accesses.
const MEMORY_SPACE: u16 = 1 << 1;

/// The passed-through function.
pub(crate) struct Function {
    device: VfioDevice,
    msi: MsiCapability,
    /// Offset of the MSI capability in configuration space.
    msi_offset: u16,
    irqfds: Arc<MsiIrqfdSet>,
    /// The base address register's value.
    bar: u32,
    _thread: IrqfdThread,
}

impl Function {
    /// Opens a function that is bound to `vfio-pci`, and gives it DMA access to the guest's RAM.
    pub(crate) fn open(
        path: &Path,
        vm: &Arc<VmFd>,
        ram: &'static GuestMemoryMmap<()>,
    ) -> Result<Self, Failure> {
        let mut tracker =
            kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, fd: 0, flags: 0 };
        let tracker = VfioDeviceFd::new_from_kvm(vm.create_device(&mut tracker)?);
        let container = Arc::new(VfioContainer::new(Some(Arc::new(tracker)))?);
        let device = VfioDevice::new(path, container.clone(), false)?;
        kernel::reach_ram(&container, ram)?;
        kernel::lend_region(vm, &device, PCI_WINDOW.start)?;

        let router = KvmRouter::new(RustVmm(vm.clone()), KvmConfig::new(Pin::COUNT))?;
        let (router, poller) = (Arc::new(router), EventfdPoller::new()?);
        let thread = poller.spawn()?;
        let irqfds = Arc::new(MsiIrqfdSet::new(router.clone(), poller)?);
        let eventfds = Arc::new(DeviceEventfds::new(irqfds.clone()));
        let trigger = EventFd::new(EFD_NONBLOCK)?;
        device.enable_msi(vec![&trigger])?;
        let source = eventfds.add(RustVmm(&trigger).as_fd().try_clone_to_owned()?)?;
        eventfds.set_vector(source, Some(0))?;

        let msi_offset = find_msi(&device).ok_or("the function has no MSI capability")?;
        let [next, low, high] = read_config(&device, msi_offset + 1);
        let control = Control::from(u16::from_le_bytes([low, high]));
        let layout = MsiLayout {
            log2_vectors: 0,
            address_64: control.address_64(),
            per_vector_masking: control.per_vector_masking(),
        };
        let sender = Sender::Device(DeviceId::new(ADDRESS.into()));
        let msi = MsiCapability::new(layout, next, sender, router)?.with_observer(eventfds);
        Ok(Self { device, msi, msi_offset, irqfds, bar: 0, _thread: thread })
    }

    /// Reads from the guest's ECAM.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        let Some(offset) = offset(address) else {
            data.fill(u8::MAX);
            return;
        };
        self.device.region_read(CONFIG_REGION, data, offset.into());
        let word = match offset & !3 {
            FIRST_BAR => self.bar & self.size_mask(),
            FIRST_BAR..=LAST_BAR | EXPANSION_ROM => 0,
            _ => {
                if let Some(offset) = self.in_msi(offset) {
                    self.msi.read(offset, data);
                }
                return;
            }
        };
        let bytes = word.to_le_bytes();
        let bytes = bytes.iter().skip(usize::from(offset & 3));
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }

    /// Writes to the guest's ECAM.
    pub(crate) fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Failure> {
        match (offset(address), data) {
            (Some(FIRST_BAR), &[a, b, c, d]) => self.bar = u32::from_le_bytes([a, b, c, d]),
            (Some(COMMAND), &[low, high, ..]) => self.command(u16::from_le_bytes([low, high]))?,
            (Some(offset), data) => {
                if let Some(offset) = self.in_msi(offset) {
                    self.msi.write(offset, data);
                    self.irqfds.hand_over()?;
                }
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Writes the command register. The memory region can't be moved away from the address at which
    /// guests place their first region.
    fn command(&self, command: u16) -> Result<(), Failure> {
        let place = self.bar & self.size_mask();
        if command & MEMORY_SPACE != 0 && u64::from(place) != PCI_WINDOW.start {
            return Err(format!("the guest places the region at {place:#x}").into());
        }
        self.device.region_write(CONFIG_REGION, &command.to_le_bytes(), COMMAND.into());
        Ok(())
    }

    fn size_mask(&self) -> u32 {
        // A region of 4 GiB or more would not fit into the window.
        u32::try_from(self.device.get_region_size(0)).map_or(0, u32::wrapping_neg)
    }

    /// Returns the register's offset in the MSI capability if the register is part of the
    /// capability.
    fn in_msi(&self, offset: u16) -> Option<u16> {
        offset.checked_sub(self.msi_offset).filter(|offset| *offset < self.msi.length())
    }
}

/// Returns the offset into the function's configuration space.
fn offset(address: u64) -> Option<u16> {
    let offset = address.checked_sub(ECAM.start + PLACE)?;
    u16::try_from(offset).ok().filter(|_| offset < CONFIG_BYTES)
}

fn find_msi(device: &VfioDevice) -> Option<u16> {
    /// Maximum number of capabilities that fit into 256 bytes.
    const MOST: usize = 48;
    let mut register = CAPABILITIES;
    for _ in 0..MOST {
        let [next] = read_config(device, register);
        let offset = u16::from(next & !3);
        if offset == 0 {
            return None;
        }
        let [id] = read_config(device, offset);
        if id == CAPABILITY_ID {
            return Some(offset);
        }
        register = offset + 1;
    }
    None
}

fn read_config<const N: usize>(device: &VfioDevice, offset: u16) -> [u8; N] {
    let mut bytes = [0; N];
    device.region_read(CONFIG_REGION, &mut bytes, offset.into());
    bytes
}
