//! A small SMMUv3 (IHI 0070): a linear stream table, stage 1 with 4 KiB pages and 39-bit addresses,
//! a command queue and an event queue. Tables and queues are in guest memory. The only cache is the
//! router's. Events that do not fit into the queue are lost. Memory attributes, the access flag,
//! the queues' enable bits, interrupts, `SMMU_GBPA` and `SMMU_GERROR` are ignored.

use super::{Memory, Registers, lock};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use vgic_monitor::irq_routing::{Access, Invalidation, RouteError, Router, Routing, TranslateMsi};
use vgic_monitor::msi_types::DeviceId;
use vm_memory::{Bytes, GuestAddress};

const CR0: u64 = 0x20;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
const EVENTQ_PROD: u64 = 0x1_00a8;
const EVENTQ_CONS: u64 = 0x1_00ac;
/// Maximum number of entries in a queue, as a power of two.
const QUEUE_BITS: u64 = 7;
const ADDRESS: u64 = 0xf_ffff_ffff_f000;
/// Address of a stream table or a context descriptor.
const WIDE_ADDRESS: u64 = 0xf_ffff_ffff_ffc0;

pub(crate) struct Smmu {
    memory: Arc<Memory>,
    /// Registers by offset; the state to save.
    pub(crate) registers: Mutex<Registers>,
    /// Lock held while commands are executed. Unlike `registers`, no translation takes it.
    executing: Mutex<()>,
    pub(crate) router: OnceLock<Weak<Router>>,
}

impl Smmu {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        let (registers, executing, router) = Default::default();
        Self { memory, registers, executing, router }
    }

    pub(crate) fn read(&self, offset: u64) -> u64 {
        match offset {
            0x00 => 0x1a,                             // IDR0: stage 1, AArch64 tables, coherent
            0x04 => 7 << 21 | 7 << 16 | 6,            // IDR1: sizes of queues and StreamIDs
            0x14 => 0x14,                             // IDR5: 4 KiB pages, 44-bit output addresses
            0x24 => get(&lock(&self.registers), CR0), // CR0ACK
            _ => get(&lock(&self.registers), offset),
        }
    }

    pub(crate) fn write(&self, offset: u64, value: u64) -> Result<(), RouteError> {
        lock(&self.registers).insert(offset, value);
        match offset {
            CR0 => self.invalidate(&Invalidation::all()),
            CMDQ_PROD => self.execute(),
            _ => Ok(()),
        }
    }

    pub(crate) fn invalidate(&self, invalidation: &Invalidation) -> Result<(), RouteError> {
        let router = self.router.get().and_then(Weak::upgrade);
        router.map_or(Ok(()), |router| router.invalidate(invalidation))
    }

    /// Executes commands. `CMD_SYNC` has nothing to wait for, because each command is complete
    /// before the next one starts.
    fn execute(&self) -> Result<(), RouteError> {
        let _executing = lock(&self.executing);
        for _ in 0..1 << QUEUE_BITS {
            let registers = lock(&self.registers).clone();
            let index = get(&registers, CMDQ_CONS);
            if index == get(&registers, CMDQ_PROD) {
                break;
            }
            let (at, next) = entry(get(&registers, CMDQ_BASE), index, 16);
            let [command, operand]: [u64; 2] = self.memory.read_obj(at).unwrap_or_default();
            let device = DeviceId::new(u32::try_from(command >> 32).unwrap_or_default());
            let block = operand & !0x3fff_ffff; // the guest may unmap 1 GiB by one address
            // Unknown commands invalidate everything, which is always allowed.
            let all = Invalidation::all();
            let invalidation = match command & 0xff {
                0x01 | 0x02 | 0x46 => None, // prefetches, CMD_SYNC
                0x03 | 0x05 => Some(all.with_devices(device..=device)), // CMD_CFGI_STE, _CD
                0x12 | 0x13 => Some(all.with_addresses(block..=block | 0x3fff_ffff)),
                _ => Some(all),
            };
            invalidation.map_or(Ok(()), |invalidation| self.invalidate(&invalidation))?;
            lock(&self.registers).insert(CMDQ_CONS, next);
        }
        Ok(())
    }

    /// Translates the address of a write. An error is the number of the event, or 0 for none.
    fn walk(&self, registers: &Registers, stream: u64, iova: u64) -> Result<u64, u64> {
        let load = |address| -> Result<u64, u64> {
            self.memory.read_obj(GuestAddress(address)).map_err(|_| 0x0b) // F_WALK_EABT
        };
        if get(registers, CR0) & 1 == 0 {
            return Ok(iova);
        }
        if stream >> (get(registers, STRTAB_BASE_CFG) & 0x3f) != 0 {
            return Err(0x02); // C_BAD_STREAMID
        }
        let table = get(registers, STRTAB_BASE) & WIDE_ADDRESS;
        let ste = load(table + 64 * stream).map_err(|_| 0x03_u64)?; // F_STE_FETCH
        match ste & 0xf {
            0b1001 => return Ok(iova),
            0b1011 => {}                                   // stage 1
            entry if entry & 0b1001 == 1 => return Err(0), // abort
            _ => return Err(0x04),                         // C_BAD_STE
        }
        let context = ste & WIDE_ADDRESS;
        if load(context).map_err(|_| 0x09_u64)? & 0x8000_00ff != 0x8000_0019 {
            return Err(0x0a); // C_BAD_CD: invalid, or other sizes
        }
        if iova >> 39 != 0 {
            return Err(0x10); // F_TRANSLATION
        }
        let mut entry = load(context + 8)?;
        for (shift, leaf) in [(30, 0b01), (21, 0b01), (12, 0b11)] {
            entry = load((entry & ADDRESS) + 8 * (iova >> shift & 0x1ff))?;
            let offsets = (1 << shift) - 1;
            match entry & 0b11 {
                kind if kind == leaf && entry & 1 << 7 != 0 => return Err(0x13), // F_PERMISSION
                kind if kind == leaf => return Ok(entry & ADDRESS & !offsets | iova & offsets),
                0b11 => {}
                _ => break,
            }
        }
        Err(0x10) // F_TRANSLATION
    }
}

impl TranslateMsi for Smmu {
    fn translate(&self, device: DeviceId, iova: u64, access: Access) -> Option<u64> {
        let (stream, mut registers) = (u64::from(device.get()), lock(&self.registers));
        let translated = self.walk(&registers, stream, iova);
        if let (Err(event @ 1..), Access::Message) = (translated, access) {
            let [base, end, read] =
                [EVENTQ_BASE, EVENTQ_PROD, EVENTQ_CONS].map(|offset| get(&registers, offset));
            let (at, next) = entry(base, end, 32);
            let has_room = end == read || at != entry(base, read, 32).0;
            let record = [event | stream << 32, 0, iova, 0];
            if has_room && self.memory.write_obj(record, at).is_ok() {
                registers.insert(EVENTQ_PROD, next);
            }
        }
        translated.ok()
    }
}

fn get(registers: &Registers, offset: u64) -> u64 {
    registers.get(&offset).copied().unwrap_or(0)
}

/// Returns the address of a queue's entry, and the index of the next one.
fn entry(base: u64, index: u64, bytes: u64) -> (GuestAddress, u64) {
    let entries = 1 << (base & 0x1f).min(QUEUE_BITS);
    let address = (base & 0xf_ffff_ffff_ffe0) + bytes * (index & (entries - 1));
    (GuestAddress(address), index.wrapping_add(1) & (2 * entries - 1))
}
