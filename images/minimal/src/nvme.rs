//! A minimal NVMe driver that supports only what interrupts require: the admin queue, and one I/O
//! queue that reads the disk's first block (NVM Express Base 2.0, §3.1.3, §3.3, §5).

use core::array::from_fn;
use core::sync::atomic::{AtomicU32, Ordering};
use image_rt::cpu;
use irq_domain::pci::{MappedRegion, TableMemory};

/// Class code of NVMe controllers.
pub(crate) const CLASS: u32 = 0x01_0802;
/// Number of entries of each queue.
const ENTRIES: u32 = 16;
const CAP_HIGH: u64 = 4;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;

/// Memory that the controller reads and writes.
#[repr(C, align(4096))]
struct Page([AtomicU32; 1024]);

impl Page {
    fn new() -> Self {
        Self(from_fn(|_| AtomicU32::new(0)))
    }

    fn address(&self) -> [u32; 2] {
        let address = core::ptr::from_ref(self).expose_provenance() as u64;
        [address as u32, (address >> 32) as u32]
    }
}

/// A submission queue and its completion queue. One task submits commands, and one interrupt
/// handler consumes completions.
pub(crate) struct Queue {
    submissions: Page,
    completions: Page,
    /// Numbers of commands submitted and completed so far.
    submitted: AtomicU32,
    completed: AtomicU32,
}

impl Queue {
    fn new() -> Self {
        let (submissions, completions) = (Page::new(), Page::new());
        let (submitted, completed) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { submissions, completions, submitted, completed }
    }
}

/// A controller. The admin queue has number 0 and signals vector 0; the I/O queue has number 1 and
/// signals vector 1.
pub(crate) struct Nvme {
    registers: MappedRegion,
    queues: [Queue; 2],
    data: Page,
}

impl Nvme {
    /// Initializes a controller that is disabled.
    pub(crate) fn new(registers: MappedRegion) -> Self {
        let nvme = Self { registers, queues: from_fn(|_| Queue::new()), data: Page::new() };
        nvme.set_enabled(false);
        nvme
    }

    /// Turns the controller on and creates the I/O queue. MSI-X must be enabled: QEMU ignores the
    /// vector of a queue that is created earlier.
    pub(crate) fn start(&self) {
        let [admin, io] = &self.queues;
        self.write(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.write_address(ASQ, &admin.submissions);
        self.write_address(ACQ, &admin.completions);
        self.set_enabled(true);
        let size_and_number = (ENTRIES - 1) << 16 | 1;
        // The queue signals vector 1, has interrupts enabled, and is physically contiguous.
        self.run(0, [5, 0], &io.completions, [size_and_number, 1 << 16 | 0b11]);
        // The queue reports completions in queue 1, and is physically contiguous.
        self.run(0, [1, 0], &io.submissions, [size_and_number, 1 << 16 | 1]);
    }

    /// Executes an Identify command on the admin queue.
    pub(crate) fn identify(&self) {
        self.run(0, [6, 0], &self.data, [1, 0]);
    }

    /// Reads the first block on the I/O queue.
    pub(crate) fn read(&self) {
        self.run(1, [2, 1], &self.data, [0, 0]);
    }

    /// Consumes the queue's completions. Called by the handler of the queue's vector.
    pub(crate) fn complete(&self, number: usize) {
        let queue = &self.queues[number];
        let mut completed = queue.completed.load(Ordering::Relaxed);
        loop {
            let [slot, round] = [completed % ENTRIES, completed / ENTRIES];
            let status = queue.completions.0[slot as usize * 4 + 3].load(Ordering::Relaxed);
            if status >> 16 & 1 == round & 1 {
                break; // an entry of the previous round
            }
            assert_eq!(status >> 17, 0, "the disk refused a command");
            completed += 1;
        }
        self.write(self.doorbell(number) + self.stride(), completed % ENTRIES);
        queue.completed.store(completed, Ordering::Release);
    }

    /// Executes a command, given its opcode and namespace, the address of its data, and its dwords
    /// 10 and 11.
    fn run(&self, number: usize, command: [u32; 2], data: &Page, last: [u32; 2]) {
        let queue = &self.queues[number];
        let submitted = queue.submitted.load(Ordering::Relaxed);
        let start = (submitted % ENTRIES * 16) as usize;
        let entry = &queue.submissions.0[start..start + 16];
        let [low, high] = data.address();
        for (at, word) in [(0, command[0]), (1, command[1]), (6, low), (7, high)] {
            entry[at].store(word, Ordering::Relaxed);
        }
        entry[10].store(last[0], Ordering::Relaxed);
        entry[11].store(last[1], Ordering::Relaxed);
        cpu::publish_stores();
        queue.submitted.store(submitted + 1, Ordering::Relaxed);
        self.write(self.doorbell(number), (submitted + 1) % ENTRIES);
        let is_done = || queue.completed.load(Ordering::Acquire) == submitted + 1;
        assert!(cpu::wait_until(5000, is_done), "no interrupt from queue {number}");
    }

    fn set_enabled(&self, enabled: bool) {
        // Queue entries have 2^6 and 2^4 bytes.
        self.write(CC, 4 << 20 | 6 << 16 | u32::from(enabled));
        let is_ready = || TableMemory::read32(&self.registers, CSTS) & 1 == u32::from(enabled);
        assert!(cpu::wait_until(5000, is_ready), "the disk does not answer");
    }

    fn doorbell(&self, number: usize) -> u64 {
        DOORBELLS + 2 * number as u64 * self.stride()
    }

    /// Returns the distance between doorbells in bytes.
    fn stride(&self) -> u64 {
        4 << (TableMemory::read32(&self.registers, CAP_HIGH) & 15)
    }

    fn write_address(&self, register: u64, page: &Page) {
        let [low, high] = page.address();
        self.write(register, low);
        self.write(register + 4, high);
    }

    fn write(&self, register: u64, value: u32) {
        TableMemory::write32(&self.registers, register, value);
    }
}
