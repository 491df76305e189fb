//! The heap is a buddy allocator: it aligns blocks to their size, which controller tables require.

use crate::cpu;
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;
use spin::Mutex;

/// Global allocator of the image. May be used in any context.
#[derive(Debug)]
pub struct Allocator(Mutex<Heap<33>>);

#[global_allocator]
static HEAP: Allocator = Allocator(Mutex::new(Heap::empty()));

/// Adds RAM to the heap. Must be called once.
///
/// # Safety
/// `memory` must be RAM that the start code has mapped, and must not have any other user from now
/// on.
pub unsafe fn init(memory: Range<usize>) {
    // SAFETY: the caller guarantees that `memory` is mapped RAM without another user.
    HEAP.with(|heap| unsafe { heap.add_to_heap(memory.start, memory.end) });
}

/// Returns the RAM behind the image, up to the devicetree if that follows the image.
pub(crate) fn free_memory(ram: &Range<usize>, devicetree: usize) -> Range<usize> {
    let start = crate::memory::image().end;
    let end = if devicetree > start { devicetree } else { ram.end };
    start..end
}

/// Returns the number of bytes in use.
pub fn used() -> usize {
    HEAP.with(|heap| heap.stats_alloc_actual())
}

impl Allocator {
    fn with<T>(&self, f: impl FnOnce(&mut Heap<33>) -> T) -> T {
        let state = cpu::irq_save();
        let result = f(&mut self.0.lock());
        cpu::irq_restore(state);
        result
    }
}

// SAFETY: the buddy allocator returns disjoint blocks of the layout's size and alignment.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|heap| heap.alloc(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr))
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller frees its own allocation with the layout of that allocation.
            self.with(|heap| unsafe { heap.dealloc(pointer, layout) });
        }
    }
}
