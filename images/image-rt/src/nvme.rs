//! A minimal NVMe driver that supports only what interrupts require: an admin queue, and I/O queues
//! that read single blocks (NVM Express Base 2.0, §3.1.3, §3.3, §5).

use crate::cpu;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::array::from_fn;
use core::sync::atomic::{AtomicU32, Ordering};
use irq_domain::pci::TableMemory;
use thiserror::Error;

/// Class code of NVMe controllers.
pub const CLASS: u32 = 0x01_0802;
/// Number of entries of each queue.
const ENTRIES: u32 = 16;
const CAP_HIGH: u64 = 4;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;
/// Time limit for a command or a change of state, in milliseconds.
const PATIENCE: u64 = 5000;

/// Reason why an operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NvmeError {
    /// The controller did not start or stop in time.
    #[error("the disk did not start or stop in time")]
    NotReady,
    /// No interrupt completed a command on this queue in time.
    #[error("no interrupt from queue {0}")]
    NoInterrupt(u16),
    /// The controller refused a command on this queue.
    #[error("the disk refused a command on queue {0}")]
    Refused(u16),
}

/// A page of memory that the controller reads or writes.
#[repr(C, align(4096))]
struct Page([AtomicU32; 1024]);

impl Page {
    fn new() -> Box<Self> {
        Box::new(Self(from_fn(|_| AtomicU32::new(0))))
    }

    fn address(&self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }
}

/// A submission queue and its completion queue. One task submits commands, and one interrupt
/// handler consumes completions.
struct Queue {
    submissions: Box<Page>,
    completions: Box<Page>,
    data: Box<Page>,
    /// Number of commands submitted so far.
    submitted: AtomicU32,
    /// Number of commands completed so far.
    completed: AtomicU32,
    /// Status of the last completed command, or 0 if it was successful.
    status: AtomicU32,
}

impl Queue {
    fn new() -> Self {
        let [submissions, completions, data] = from_fn(|_| Page::new());
        let [submitted, completed, status] = from_fn(|_| AtomicU32::new(0));
        Self { submissions, completions, data, submitted, completed, status }
    }
}

/// A controller. Queue *n* signals vector *n*; queue 0 is the admin queue. Only one task at a time
/// may use a queue.
pub struct Nvme<R: TableMemory> {
    registers: R,
    queues: Vec<Queue>,
    /// Distance between doorbells in bytes.
    stride: u64,
}

impl<R: TableMemory> Nvme<R> {
    /// Creates a driver with this many I/O queues. Does not change the controller.
    pub fn new(registers: R, io_queues: u16) -> Self {
        let stride = 4 << (registers.read32(CAP_HIGH) & 15);
        Self { registers, queues: (0..=io_queues).map(|_| Queue::new()).collect(), stride }
    }

    /// Turns the controller on and creates the I/O queues. Must be called only once, after MSI-X
    /// was enabled, because QEMU ignores the vector of a queue that is created before.
    pub fn start(&self) -> Result<(), NvmeError> {
        self.set_enabled(false)?;
        let admin = &self.queues[0];
        self.write(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.write_address(ASQ, &admin.submissions);
        self.write_address(ACQ, &admin.completions);
        self.set_enabled(true)?;
        for (number, queue) in (0..).zip(&self.queues).skip(1) {
            let [size, number] = [(ENTRIES - 1) << 16 | number, number << 16];
            // The queue signals this vector, has interrupts enabled, and is physically contiguous.
            self.run(0, [5, 0], &queue.completions, [size, number | 0b11])?;
            // The queue reports completions in this queue, and is physically contiguous.
            self.run(0, [1, 0], &queue.submissions, [size, number | 1])?;
        }
        Ok(())
    }

    /// Executes an Identify command on the admin queue.
    pub fn identify(&self) -> Result<(), NvmeError> {
        self.run(0, [6, 0], &self.queues[0].data, [1, 0])
    }

    /// Reads a block on an I/O queue, and returns the block's first 64 bits.
    pub fn read(&self, queue: u16, block: u32) -> Result<u64, NvmeError> {
        let data = &self.queues[usize::from(queue)].data;
        data.0[..2].iter().for_each(|word| word.store(u32::MAX, Ordering::Relaxed));
        self.run(queue, [2, 1], data, [block, 0])?;
        let [low, high] = [0, 1].map(|word| u64::from(data.0[word].load(Ordering::Relaxed)));
        Ok(high << 32 | low)
    }

    /// Consumes the queue's completions. Must be called by the handler of the queue's vector.
    pub fn complete(&self, number: u16) {
        let queue = &self.queues[usize::from(number)];
        let before = queue.completed.load(Ordering::Relaxed);
        let mut completed = before;
        loop {
            let [slot, round] = [completed % ENTRIES, completed / ENTRIES];
            let status = queue.completions.0[slot as usize * 4 + 3].load(Ordering::Relaxed);
            if status >> 16 & 1 == round & 1 {
                break; // left from the previous round
            }
            queue.status.store(status >> 17, Ordering::Relaxed);
            completed += 1;
        }
        if completed != before {
            self.write(self.doorbell(number) + self.stride, completed % ENTRIES);
            queue.completed.store(completed, Ordering::Release);
        }
    }

    /// Executes a command with a page of data.
    fn run(
        &self,
        number: u16,
        command: [u32; 2],
        data: &Page,
        last: [u32; 2],
    ) -> Result<(), NvmeError> {
        self.submit(number, command, data.address(), last);
        self.finish(number)
    }

    /// Submits a command, given its opcode and namespace, the address of its data, and its dwords
    /// 10 and 11. Callers must not fill the queue.
    pub fn submit(&self, number: u16, command: [u32; 2], data: u64, last: [u32; 2]) {
        let queue = &self.queues[usize::from(number)];
        let submitted = queue.submitted.load(Ordering::Relaxed);
        let start = (submitted % ENTRIES * 16) as usize;
        let entry = &queue.submissions.0[start..start + 16];
        let [low, high] = [data, data >> 32].map(|half| half as u32);
        for (at, words) in [(0, command), (6, [low, high]), (10, last)] {
            entry[at].store(words[0], Ordering::Relaxed);
            entry[at + 1].store(words[1], Ordering::Relaxed);
        }
        cpu::publish_stores();
        let submitted = submitted + 1;
        queue.submitted.store(submitted, Ordering::Relaxed);
        self.write(self.doorbell(number), submitted % ENTRIES);
    }

    /// Returns `true` if all commands of a queue are completed.
    pub fn is_idle(&self, number: u16) -> bool {
        let queue = &self.queues[usize::from(number)];
        queue.completed.load(Ordering::Acquire) == queue.submitted.load(Ordering::Relaxed)
    }

    fn finish(&self, number: u16) -> Result<(), NvmeError> {
        if !cpu::wait_until(PATIENCE, || self.is_idle(number)) {
            return Err(NvmeError::NoInterrupt(number));
        }
        let status = self.queues[usize::from(number)].status.load(Ordering::Relaxed);
        if status == 0 { Ok(()) } else { Err(NvmeError::Refused(number)) }
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), NvmeError> {
        // Submissions have 2^6 bytes, and completions 2^4 bytes.
        self.write(CC, 4 << 20 | 6 << 16 | u32::from(enabled));
        let is_ready = || self.registers.read32(CSTS) & 1 == u32::from(enabled);
        if cpu::wait_until(PATIENCE, is_ready) { Ok(()) } else { Err(NvmeError::NotReady) }
    }

    fn doorbell(&self, number: u16) -> u64 {
        DOORBELLS + 2 * u64::from(number) * self.stride
    }

    fn write_address(&self, register: u64, page: &Page) {
        self.write(register, page.address() as u32);
        self.write(register + 4, (page.address() >> 32) as u32);
    }

    fn write(&self, register: u64, value: u32) {
        self.registers.write32(register, value);
    }
}

impl<R: TableMemory> Drop for Nvme<R> {
    /// Stops the controller, which may access the queues' memory until it is disabled.
    fn drop(&mut self) {
        let _ = self.set_enabled(false);
    }
}
