use super::*;
use proptest::prelude::*;

const FIRST: u32 = 8195;
const COUNT: u32 = 200;

#[derive(Clone, Debug)]
enum Op {
    Allocate {
        count: u32,
        align: u32,
    },
    Take {
        first: u32,
        count: u32,
    },
    /// Frees the live block at this position, modulo the number of live blocks.
    Free {
        which: usize,
    },
    /// Frees numbers without checking that they are allocated.
    FreeBlindly {
        first: u32,
        count: u32,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let count = prop_oneof![4 => 1u32..9, 1 => 1u32..(COUNT + 2)];
    let number = (FIRST - 3)..(FIRST + COUNT + 3);
    prop_oneof![
        6 => (count, 0u32..8).prop_map(|(count, log)| Op::Allocate { count, align: 1 << log }),
        1 => (number.clone(), 1u32..9).prop_map(|(first, count)| Op::Take { first, count }),
        4 => any::<usize>().prop_map(|which| Op::Free { which }),
        1 => (number, 1u32..9).prop_map(|(first, count)| Op::FreeBlindly { first, count }),
    ]
}

/// The reference model: a plain list of allocated numbers.
#[derive(Debug, Default)]
struct Model {
    taken: Vec<u32>,
}

impl Model {
    fn inside(first: u32, count: u32) -> bool {
        first >= FIRST && first + count <= FIRST + COUNT
    }

    fn is_free(&self, first: u32, count: u32) -> bool {
        (first..first + count).all(|number| !self.taken.contains(&number))
    }

    fn is_taken(&self, first: u32, count: u32) -> bool {
        (first..first + count).all(|number| self.taken.contains(&number))
    }

    fn lowest(&self, count: u32, align: u32) -> Option<u32> {
        (FIRST..FIRST + COUNT).find(|first| {
            first % align == 0 && Self::inside(*first, count) && self.is_free(*first, count)
        })
    }
}

fn nonzero(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn take(allocator: &mut BlockAllocator, first: u32, count: u32) -> bool {
    allocator.allocate_within(nonzero(count), Alignment::ONE, first..first + count).is_ok()
}

proptest! {
    #[test]
    fn block_allocator_agrees_with_a_linear_search_model(
        ops in prop::collection::vec(op(), 0..80),
    ) {
        let mut allocator = BlockAllocator::new(FIRST, COUNT).unwrap();
        let mut model = Model::default();
        let mut live: Vec<(u32, u32)> = Vec::new();
        for op in ops {
            match op {
                Op::Allocate { count, align } => {
                    let got = allocator.allocate(nonzero(count), Alignment::to(align).unwrap());
                    let expected =
                        model.lowest(count, align).ok_or(BlockError::Exhausted { count, align });
                    prop_assert_eq!(got, expected);
                    if let Ok(first) = got {
                        model.taken.extend(first..first + count);
                        live.push((first, count));
                    }
                }
                Op::Take { first, count } => {
                    let got = take(&mut allocator, first, count);
                    prop_assert_eq!(
                        got,
                        Model::inside(first, count) && model.is_free(first, count)
                    );
                    if got {
                        model.taken.extend(first..first + count);
                        live.push((first, count));
                    }
                }
                Op::Free { which } if !live.is_empty() => {
                    let (first, count) = live.swap_remove(which % live.len());
                    prop_assert_eq!(allocator.free(first, nonzero(count)), Ok(()));
                    model.taken.retain(|number| !(first..first + count).contains(number));
                }
                Op::Free { .. } => {}
                Op::FreeBlindly { first, count } => {
                    let wrong = !Model::inside(first, count) || !model.is_taken(first, count);
                    if wrong {
                        prop_assert!(allocator.free(first, nonzero(count)).is_err());
                    }
                }
            }
            prop_assert_eq!(allocator.available() as usize, COUNT as usize - model.taken.len());
        }
        for number in FIRST - 2..FIRST + COUNT + 2 {
            prop_assert_eq!(allocator.is_allocated(number), model.taken.contains(&number));
        }
    }
}

#[test]
fn blocks_are_aligned_to_absolute_numbers() {
    let mut allocator = BlockAllocator::new(100, 100).unwrap();
    assert_eq!(allocator.allocate(nonzero(32), Alignment::to(32).unwrap()), Ok(128));
}

#[test]
fn an_allocated_block_can_span_bitmap_words() {
    let mut allocator = BlockAllocator::new(0, 256).unwrap();
    assert!(take(&mut allocator, 130, 1));
    assert_eq!(allocator.allocate(nonzero(126), Alignment::ONE), Ok(0));
    assert_eq!(allocator.allocate(nonzero(125), Alignment::ONE), Ok(131));
}

#[test]
fn double_free_names_the_first_free_number() {
    let mut allocator = BlockAllocator::new(8192, 64).unwrap();
    let first = allocator.allocate(nonzero(4), Alignment::ONE).unwrap();
    allocator.free(first + 2, nonzero(1)).unwrap();
    assert_eq!(allocator.free(first, nonzero(4)), Err(BlockError::NotAllocated(8194)));
    assert!(allocator.is_allocated(first), "nothing was freed");
}

#[test]
fn numbers_near_the_maximum_do_not_overflow() {
    let mut allocator = BlockAllocator::new(u32::MAX - 3, 100).unwrap();
    assert_eq!(allocator.capacity(), 3);
    let big = Alignment::to(1 << 31).unwrap();
    assert!(allocator.allocate(nonzero(1), big).is_err());
    assert_eq!(allocator.allocate(nonzero(3), Alignment::ONE), Ok(u32::MAX - 3));
    assert!(allocator.free(u32::MAX, nonzero(2)).is_err());
}

#[test]
fn an_empty_range_refuses_allocation() {
    assert!(BlockAllocator::new(8192, 0).unwrap().allocate(nonzero(1), Alignment::ONE).is_err());
}

#[test]
fn groups_are_aligned_to_the_next_power_of_two() {
    let aligned = [1, 2, 3, 5, 32].map(|count| Alignment::of_group(nonzero(count)).unwrap().get());
    assert_eq!(aligned, [1, 2, 4, 8, 32]);
    assert_eq!(Alignment::of_group(nonzero(u32::MAX)), None);
}

proptest! {
    #[test]
    fn allocation_within_a_range_returns_the_lowest_free_block(
        taken in prop::collection::vec((FIRST..FIRST + COUNT, 1u32..9), 0..20),
        count in 1u32..9,
        log in 0u32..5,
        start in any::<u32>(),
        length in 0u32..2 * COUNT,
    ) {
        let mut allocator = BlockAllocator::new(FIRST, COUNT).unwrap();
        let mut model = Model::default();
        for (first, count) in taken {
            if take(&mut allocator, first, count) {
                model.taken.extend(first..first + count);
            }
        }
        let start = FIRST - 10 + start % (COUNT + 20);
        let within = start..start + length;
        let fits = |first: &u32| {
            first.is_multiple_of(1 << log)
                && Model::inside(*first, count)
                && model.is_free(*first, count)
                && first + count <= within.end
        };
        let expected = (FIRST.max(start)..FIRST + COUNT).find(fits).ok_or(());
        let any = (FIRST..FIRST + COUNT)
            .any(|number| within.contains(&number) && model.is_free(number, 1));
        prop_assert_eq!(allocator.has_free_within(within.clone()), any);
        let got =
            allocator.allocate_within(nonzero(count), Alignment::to(1 << log).unwrap(), within);
        prop_assert_eq!(got.map_err(|_| ()), expected);
    }
}
