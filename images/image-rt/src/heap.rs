//! The heap is a buddy allocator: it aligns blocks to their size, which controller tables require.

use crate::lock::IrqMutex;
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;

/// Global allocator of the image. May be used in any context.
#[derive(Debug)]
pub struct Allocator(IrqMutex<Heap<33>>);

#[global_allocator]
static HEAP: Allocator = Allocator(IrqMutex::new(Heap::empty()));

/// Adds RAM to the heap. Must be called once.
///
/// # Safety
/// `memory` must be RAM that the start code has mapped, and must not have any other user from now
/// on.
pub unsafe fn init(memory: Range<usize>) {
    // SAFETY: the caller guarantees that `memory` is mapped RAM without another user.
    HEAP.0.with(|heap| unsafe { heap.add_to_heap(memory.start, memory.end) });
}

/// Returns the RAM behind the image, up to the devicetree if that follows the image.
pub(crate) fn free_memory(ram: &Range<usize>, devicetree: usize) -> Range<usize> {
    let start = crate::memory::image().end;
    let end = if devicetree > start { devicetree } else { ram.end };
    start..end
}

/// Returns the number of bytes in use.
pub fn used() -> usize {
    HEAP.0.with(|heap| heap.stats_alloc_actual())
}

// SAFETY: the buddy allocator returns disjoint blocks of the layout's size and alignment.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.with(|heap| heap.alloc(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr))
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller frees its own allocation with the layout of that allocation.
            self.0.with(|heap| unsafe { heap.dealloc(pointer, layout) });
        }
    }
}
