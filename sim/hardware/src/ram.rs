//! Guest RAM, which allocates its pages on first use. The drivers' threads and the model's threads
//! access the same memory.
//!
//! If a controller does not snoop the CPUs' caches, a word that a CPU stores stays in a cached copy
//! until the CPU cleans it; table writes that a driver forgot to clean are invisible to the model.
//! Cache lines are as short as possible (one 8-byte word), so that cleaning a word never also
//! cleans its neighbors.

mod allocator;
mod page;

pub use page::Caches;

use crate::lock::lock;
use allocator::Allocator;
use gic_firmware::Region;
use page::Page;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, OnceLock};
use vgic::{GuestMemory, MemoryFault};

/// Size of a page in bytes.
const PAGE: u64 = 0x1_0000;
/// Number of pages in a chunk of 64 MiB.
const PAGES: u64 = 1024;
const CHUNK: u64 = PAGE * PAGES;

/// Pattern that fills table memory when it is freed, so that a controller that still reads the
/// table finds garbage.
const POISON: u64 = 0xdead_beef_dead_beef;

/// The way in which stores to a range are made visible to other masters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Publication {
    /// A barrier, which makes stores visible to masters that snoop the CPU caches.
    Barrier,
    /// A clean to the point of coherency, which makes stores visible to all masters.
    Clean,
}

/// RAM in several regions.
pub struct Ram {
    banks: Box<[Bank]>,
    caches: Caches,
    allocator: Mutex<Allocator>,
}

struct Bank {
    region: Region,
    chunks: Box<[OnceLock<Box<Chunk>>]>,
}

type Chunk = [OnceLock<Box<Page>>];

/// The location of a word in RAM: its page, and its index in that page.
struct WordRef<'a> {
    page: &'a Page,
    word: usize,
}

impl Ram {
    /// Creates zeroed RAM in `regions`, which must not overlap. Partial pages at the ends of a
    /// region can't be used.
    pub fn new(regions: &[Region], caches: Caches) -> Self {
        let banks: Box<[Bank]> = regions.iter().filter_map(|region| Bank::new(*region)).collect();
        let allocator = Allocator::new(banks.iter().map(|bank| bank.region));
        Self { banks, caches, allocator: Mutex::new(allocator) }
    }

    /// Returns the regions.
    pub fn regions(&self) -> impl Iterator<Item = Region> {
        self.banks.iter().map(|bank| bank.region)
    }

    /// Allocates zeroed memory. Returns `None` if no free range is large enough. `align` must be a
    /// power of two.
    pub fn allocate(&self, bytes: u64, align: u64) -> Option<u64> {
        self.allocate_below(bytes, align, u64::MAX)
    }

    /// Like [`allocate`](Self::allocate), but the whole range lies below `end`.
    pub fn allocate_below(&self, bytes: u64, align: u64, end: u64) -> Option<u64> {
        let address = lock(&self.allocator).take(bytes, align, end)?;
        self.fill(address..address + allocator::rounded(bytes), 0);
        Some(address)
    }

    /// Frees memory allocated by [`allocate`](Self::allocate).
    pub fn release(&self, address: u64, bytes: u64) {
        let bytes = allocator::rounded(bytes);
        self.fill(address..address + bytes, POISON);
        lock(&self.allocator).give(address, bytes);
    }

    /// Performs a CPU store of a byte. Stores outside RAM are ignored.
    pub fn cpu_store8(&self, address: u64, value: u8) {
        let shift = (address % 8) * 8;
        let (keep, add) = (!(0xff << shift), u64::from(value) << shift);
        if let Some(place) = self.place(address) {
            place.page.cpu_update(place.word, self.caches, |word| word & keep | add);
        }
    }

    /// Performs a CPU store of an aligned word. Stores outside RAM are ignored.
    pub fn cpu_store64(&self, address: u64, value: u64) {
        if let Some(place) = self.place(address) {
            place.page.cpu_update(place.word, self.caches, |_| value);
        }
    }

    /// Performs a CPU load of an aligned word. Returns 0 outside RAM.
    pub fn cpu_load64(&self, address: u64) -> u64 {
        self.existing(address).map_or(0, |place| place.page.cpu_load(place.word))
    }

    /// Performs a CPU load of a byte. Returns 0 outside RAM.
    pub fn cpu_load8(&self, address: u64) -> u8 {
        byte_of(self.cpu_load64(address & !7), address)
    }

    /// Makes the CPUs' stores to `range` visible to other masters, using the method `how`.
    pub fn publish(&self, range: Range<u64>, how: Publication) {
        let reaches = match (self.caches, how) {
            (Caches::Snooped, _) | (Caches::Hidden, Publication::Barrier) => return,
            (Caches::Hidden, Publication::Clean) | (Caches::SnoopedBySome, _) => range,
        };
        for address in words(reaches) {
            if let Some(place) = self.existing(address) {
                place.page.clean(place.word);
            }
        }
    }

    /// Performs a device load of an aligned word. Returns `None` outside RAM.
    pub fn device_load64(&self, address: u64) -> Option<u64> {
        match self.existing(address) {
            Some(place) => Some(place.page.load(place.word)),
            None => self.bank(address).map(|_| 0),
        }
    }

    /// Performs a device store of an aligned word. Returns `false` outside RAM.
    pub fn device_store64(&self, address: u64, value: u64) -> bool {
        self.place(address).map(|place| place.page.store(place.word, value)).is_some()
    }

    /// Sets all words in existing pages to `value`, for every observer.
    fn fill(&self, range: Range<u64>, value: u64) {
        let mut address = range.start;
        while address < range.end {
            match self.existing(address) {
                Some(place) => {
                    place.page.reset(place.word, value);
                    address += 8;
                }
                None => address = (address / PAGE + 1) * PAGE,
            }
        }
    }

    fn bank(&self, address: u64) -> Option<&Bank> {
        self.banks.iter().find(|bank| bank.region.contains(address))
    }

    /// Returns the word that contains `address`, creating its page if necessary. Returns `None`
    /// outside RAM.
    fn place(&self, address: u64) -> Option<WordRef<'_>> {
        let bank = self.bank(address)?;
        let offset = address - bank.region.base();
        let chunk =
            bank.chunk(offset)?.get_or_init(|| (0..PAGES).map(|_| OnceLock::new()).collect());
        let page = chunk.get(index(offset % CHUNK / PAGE))?.get_or_init(|| Box::new(Page::new()));
        Some(WordRef { page, word: index(offset % PAGE / 8) })
    }

    /// Like [`place`](Self::place), but returns `None` if the page does not exist.
    fn existing(&self, address: u64) -> Option<WordRef<'_>> {
        let bank = self.bank(address)?;
        let offset = address - bank.region.base();
        let page = bank.chunk(offset)?.get()?.get(index(offset % CHUNK / PAGE))?.get()?;
        Some(WordRef { page, word: index(offset % PAGE / 8) })
    }
}

impl Bank {
    fn new(region: Region) -> Option<Self> {
        let base = region.base().checked_next_multiple_of(PAGE)?;
        let lost = base - region.base();
        let size = region.size().checked_sub(lost)? / PAGE * PAGE;
        if size == 0 {
            return None;
        }
        let region = Region::new(base, size)?;
        Some(Self { region, chunks: (0..size.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() })
    }

    fn chunk(&self, offset: u64) -> Option<&OnceLock<Box<Chunk>>> {
        self.chunks.get(index(offset / CHUNK))
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn byte_of(word: u64, address: u64) -> u8 {
    word.to_le_bytes()[index(address % 8)]
}

/// Returns the addresses of all words that `range` touches.
fn words(range: Range<u64>) -> impl Iterator<Item = u64> {
    let first = range.start & !7;
    (first..range.end).step_by(8)
}

impl GuestMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let fault = MemoryFault { address };
        for (byte, at) in bytes.iter_mut().zip(address..) {
            *byte = byte_of(self.device_load64(at & !7).ok_or(fault)?, at);
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let fault = MemoryFault { address };
        for (byte, at) in bytes.iter().zip(address..) {
            let shift = (at % 8) * 8;
            let place = self.place(at).ok_or(fault)?;
            place
                .page
                .update(place.word, |word| word & !(0xff << shift) | u64::from(*byte) << shift);
        }
        Ok(())
    }

    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        if !address.is_multiple_of(8) {
            let mut bytes = [0; 8];
            self.read(address, &mut bytes)?;
            return Ok(u64::from_le_bytes(bytes));
        }
        self.device_load64(address).ok_or(MemoryFault { address })
    }

    fn write_u64(&self, address: u64, word: u64) -> Result<(), MemoryFault> {
        if !address.is_multiple_of(8) {
            return self.write(address, &word.to_le_bytes());
        }
        if self.device_store64(address, word) { Ok(()) } else { Err(MemoryFault { address }) }
    }
}

impl fmt::Debug for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regions: Vec<_> = self.regions().collect();
        f.debug_struct("Ram")
            .field("regions", &regions)
            .field("caches", &self.caches)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(caches: Caches) -> Ram {
        Ram::new(&[Region::new(0x8000_0000, 0x10_0000).unwrap()], caches)
    }

    #[test]
    fn a_store_that_is_not_cleaned_is_hidden_from_the_model() {
        let ram = ram(Caches::Hidden);
        ram.cpu_store64(0x8000_0000, 7);
        ram.publish(0x8000_0000..0x8000_0008, Publication::Barrier);
        assert_eq!(ram.read_u64(0x8000_0000), Ok(0));
        assert_eq!(ram.cpu_load64(0x8000_0000), 7);
    }

    #[test]
    fn cleaning_publishes_exactly_the_words_that_the_range_touches() {
        let ram = ram(Caches::Hidden);
        for word in 0..4 {
            ram.cpu_store64(0x8000_0000 + word * 8, 1 + word);
        }
        ram.publish(0x8000_000a..0x8000_0012, Publication::Clean);
        let seen: Vec<_> =
            (0..4).map(|word| ram.read_u64(0x8000_0000 + word * 8).unwrap()).collect();
        assert_eq!(seen, [0, 2, 3, 0]);
    }

    #[test]
    fn a_byte_store_keeps_neighboring_model_writes() {
        let ram = ram(Caches::Hidden);
        ram.write_u64(0x8000_0000, 0x1122_3344_5566_7788).unwrap();
        ram.cpu_store8(0x8000_0001, 0xaa);
        ram.publish(0x8000_0001..0x8000_0002, Publication::Clean);
        assert_eq!(ram.read_u64(0x8000_0000), Ok(0x1122_3344_5566_aa88));
    }

    #[test]
    fn cpu_without_dirty_copy_sees_model_writes() {
        let ram = ram(Caches::Hidden);
        ram.cpu_store8(0x8000_0000, 1);
        ram.write(0x8000_0008, &[5]).unwrap();
        assert_eq!(ram.cpu_load8(0x8000_0008), 5);
    }

    #[test]
    fn snooping_masters_see_a_store_at_once() {
        let ram = ram(Caches::Snooped);
        ram.cpu_store8(0x8000_0003, 9);
        let mut bytes = [0; 4];
        ram.read(0x8000_0000, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 0, 9]);
    }

    #[test]
    fn reallocated_memory_is_zeroed() {
        let ram = ram(Caches::Hidden);
        let first = ram.allocate(0x100, 0x100).unwrap();
        ram.cpu_store64(first, 3);
        ram.publish(first..first + 8, Publication::Clean);
        ram.release(first, 0x100);
        assert_eq!(ram.read_u64(first), Ok(POISON));
        assert_eq!(ram.allocate(0x100, 0x100), Some(first));
        assert_eq!((ram.read_u64(first), ram.cpu_load64(first)), (Ok(0), 0));
    }

    #[test]
    fn model_accesses_outside_the_ram_regions_fault() {
        let ram = ram(Caches::Snooped);
        assert_eq!(ram.read_u64(0x7fff_fff8), Err(MemoryFault { address: 0x7fff_fff8 }));
        assert_eq!(ram.write(0x800f_ffff, &[1, 2]), Err(MemoryFault { address: 0x800f_ffff }));
    }

    #[test]
    fn a_region_is_trimmed_to_whole_pages() {
        let ram = Ram::new(&[Region::new(0x1_0001, 0x2_fffe).unwrap()], Caches::Snooped);
        let regions: Vec<_> = ram.regions().collect();
        assert_eq!(regions, [Region::new(0x2_0000, 0x1_0000).unwrap()]);
    }
}
