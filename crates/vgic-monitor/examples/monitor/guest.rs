//! The guest: a script of register accesses, as a kernel's drivers make them. It keeps all that it
//! must remember in guest memory, and therefore continues in another process.

use super::{CAPABILITY, DISK, DISK_ID, ITS, Machine, NOTIFY, RAM, Result, SMMU, TABLE};
use vgic_monitor::gic_arch::icc;
use vgic_monitor::vgic::AccessWidth::{self, Double, Half, Word};
use vgic_monitor::vgic::Vcpu;
use vm_memory::{ByteValued, Bytes, GuestAddress};

const VALID: u64 = 1 << 63;
const DEVICE: u64 = (DISK_ID.get() as u64) << 32;
/// Address at which the disk reaches the ITS's doorbell.
const IOVA: u64 = 0xffff_f040;
const CMDQ_PROD: u64 = SMMU + 0x98;
// Tables and queues in guest memory, besides those of the GIC.
const STREAMS: u64 = RAM + 0x6_0000;
const CONTEXT: u64 = RAM + 0x6_1000;
const LEVELS: [u64; 3] = [RAM + 0x6_2000, RAM + 0x6_3000, RAM + 0x6_4000];
/// Entry of the doorbell's page.
const PAGE: u64 = LEVELS[2] + (IOVA >> 12 & 0x1ff) * 8;
const SMMU_COMMANDS: u64 = RAM + 0x6_5000;
const EVENTS: u64 = RAM + 0x6_6000;
const DESCRIPTORS: u64 = RAM + 0x7_0000;
const AVAILABLE: u64 = RAM + 0x7_1000;
const USED: u64 = RAM + 0x7_2000;
const REQUESTS: u64 = RAM + 0x7_3000;
/// Number of completed requests that the guest has seen.
const SEEN: u64 = RAM + 0x8_0000;

/// Maps vectors 0 and 1 of the disk to the LPIs 8192 and 8193.
const COMMANDS: [[u64; 4]; 5] = [
    [0x09, 0, VALID, 0],                             // MAPC
    [0x08 | DEVICE, 0, VALID | (RAM + 0x5_0000), 0], // MAPD
    [0x0a | DEVICE, 8192 << 32, 0, 0],               // MAPTI
    [0x0a | DEVICE, 8193 << 32 | 1, 0, 0],
    [0x05, 0, 0, 0], // SYNC
];
/// The SMMU's tables, which map only the doorbell's page.
const TRANSLATION: [(u64, u64); 6] = [
    (STREAMS + (DEVICE >> 32) * 64, CONTEXT | 0b1011), // stage 1
    (CONTEXT, 0xe204_c000_0019),                       // 39 bits, AArch64
    (CONTEXT + 8, LEVELS[0]),
    (LEVELS[0] + (IOVA >> 30) * 8, LEVELS[1] | 0b11),
    (LEVELS[1] + (IOVA >> 21 & 0x1ff) * 8, LEVELS[2] | 0b11),
    (PAGE, (ITS + 0x1_0000) | 0x443),
];
/// Writes that set up the GIC, the SMMU and the disk.
const WRITES: [(u64, AccessWidth, u64); 25] = [
    (0x0800_0000, Word, 0x12),                         // GICD_CTLR
    (0x080a_0014, Word, 0),                            // GICR_WAKER
    (0x080a_0070, Double, RAM | 0xd),                  // GICR_PROPBASER
    (0x080a_0078, Double, (RAM + 0x1_0000) | 1 << 62), // GICR_PENDBASER
    (0x080a_0000, Word, 1),                            // GICR_CTLR
    (ITS + 0x100, Double, VALID | (RAM + 0x2_0000)),   // GITS_BASER0: devices
    (ITS + 0x108, Double, VALID | (RAM + 0x3_0000)),   // GITS_BASER1: collections
    (ITS + 0x80, Double, VALID | (RAM + 0x4_0000)),    // GITS_CBASER
    (ITS, Word, 1),                                    // GITS_CTLR
    (ITS + 0x88, Double, 5 * 32),                      // GITS_CWRITER
    (SMMU + 0x80, Double, STREAMS),                    // SMMU_STRTAB_BASE
    (SMMU + 0x88, Word, 4),                            // SMMU_STRTAB_BASE_CFG
    (SMMU + 0x90, Double, SMMU_COMMANDS | 4),          // SMMU_CMDQ_BASE
    (SMMU + 0xa0, Double, EVENTS | 4),                 // SMMU_EVENTQ_BASE
    (SMMU + 0x20, Word, 0xd),                          // SMMU_CR0
    (TABLE, Double, IOVA),
    (TABLE + 8, Double, 1 << 32), // masked
    (TABLE + 16, Double, IOVA),
    (TABLE + 24, Double, 1),
    (CAPABILITY + 2, Half, 0x8000), // MSI-X is enabled
    (DISK + 0x10, Half, 0),         // config_msix_vector
    (DISK + 0x1a, Half, 1),         // queue_msix_vector
    (DISK + 0x20, Word, DESCRIPTORS),
    (DISK + 0x28, Word, AVAILABLE),
    (DISK + 0x30, Word, USED),
];

struct Guest<'m>(&'m Machine);

/// Boots: sets up the GIC, the SMMU and the disk, and reads a sector.
pub(crate) fn boot(machine: &Machine, vcpu: &mut Vcpu) -> Result<()> {
    let guest = Guest(machine);
    guest.store(RAM, [0xa1u8; 2])?; // properties of the LPIs: priority 0xa0, enabled
    for (at, command) in (RAM + 0x4_0000..).step_by(32).zip(COMMANDS) {
        guest.store(at, command)?;
    }
    TRANSLATION.into_iter().try_for_each(|(at, word)| guest.store(at, word))?;
    let write = |(address, width, value)| machine.write(address, width, value);
    WRITES.into_iter().try_for_each(write)?;
    guest.execute(0x04, 31)?; // CMD_CFGI_ALL
    guest.execute(0x30, 0)?; // CMD_TLBI_NSNH_ALL
    machine.write(DISK + 0x1c, Half, 1)?; // queue_enable
    vcpu.write_sysreg(icc::PMR.encoding(), 0xf0)?;
    vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1)?;
    guest.request(0)?;
    machine.write(NOTIFY, Half, 0)
}

/// Handles an IRQ exception.
pub(crate) fn take_interrupt(machine: &Machine, vcpu: &mut Vcpu) -> Result<()> {
    let (guest, intid) = (Guest(machine), vcpu.read_sysreg(icc::IAR1.encoding())?);
    match intid {
        8192 => guest.unmap_doorbell()?,
        8193 => guest.complete_requests()?,
        _ => return Err(format!("the guest took the unknown interrupt {intid}").into()),
    }
    Ok(vcpu.write_sysreg(icc::EOIR1.encoding(), intid)?)
}

/// Reads the oldest event in the SMMU's queue.
pub(crate) fn read_event(machine: &Machine) -> Result<()> {
    let [first, _, address, _]: [u64; 4] = Guest(machine).load(EVENTS)?;
    let (event, stream, count) = (first & 0xff, first >> 32, machine.read(SMMU + 0x1_00a8, Word));
    println!("guest: SMMU event {event:#x} of {count}: stream {stream}, address {address:#x}");
    Ok(())
}

impl Guest<'_> {
    fn load<T: ByteValued>(&self, address: u64) -> Result<T> {
        Ok(self.0.memory.read_obj(GuestAddress(address))?)
    }

    fn store<T: ByteValued>(&self, address: u64, value: T) -> Result<()> {
        Ok(self.0.memory.write_obj(value, GuestAddress(address))?)
    }

    /// Posts a command and `CMD_SYNC` to the SMMU, and waits for both.
    fn execute(&self, command: u64, operand: u64) -> Result<()> {
        let index = self.0.read(CMDQ_PROD, Word);
        self.store(SMMU_COMMANDS + 16 * index, [command, operand, 0x46, 0])?;
        self.0.write(CMDQ_PROD, Word, index + 2)?;
        let is_done = self.0.read(CMDQ_PROD + 4, Word) == index + 2;
        is_done.then_some(()).ok_or("the SMMU has not executed the commands".into())
    }

    /// Makes a request available, which reads the sector with the same number.
    fn request(&self, number: u16) -> Result<()> {
        let (place, first) = (REQUESTS + 0x400 * u64::from(number), 3 * u64::from(number));
        self.store(place, [0, u64::from(number)])?;
        // The header; the data and the status, which the disk writes.
        for (index, at, bytes, flags) in [(0, 0, 16, 1), (1, 16, 512, 3), (2, 528, 1, 2)] {
            let descriptor = [place + at, bytes | flags << 32 | (first + index + 1) << 48];
            self.store(DESCRIPTORS + 16 * (first + index), descriptor)?;
        }
        self.store(AVAILABLE + 4 + 2 * u64::from(number), 3 * number)?;
        self.store(AVAILABLE + 2, number + 1)
    }

    /// Handles the queue's interrupt: prints what the disk has read, and makes other requests.
    fn complete_requests(&self) -> Result<()> {
        let (seen, used): (u16, u16) = (self.load(SEEN)?, self.load(USED + 2)?);
        for number in seen..used {
            let data: [u8; 8] = self.load(REQUESTS + 0x400 * u64::from(number) + 16)?;
            println!("guest: interrupt of the queue: {}", String::from_utf8_lossy(&data));
        }
        self.store(SEEN, used)?;
        match used {
            1 => [1, 2].into_iter().try_for_each(|number| self.request(number))?,
            2 => self.request(3)?,
            _ => return self.0.write(TABLE + 12, Word, 0), // unmasks vector 0
        }
        self.0.write(NOTIFY, Half, 0)
    }

    /// Handles a change of the disk's configuration: unmaps the doorbell.
    fn unmap_doorbell(&self) -> Result<()> {
        println!("guest: interrupt of a configuration change; unmaps the doorbell");
        self.store(PAGE, 0u64)?;
        self.execute(0x12, IOVA & !0xfff)?; // CMD_TLBI_NH_VA
        self.0.write(NOTIFY, Half, 0)
    }
}
