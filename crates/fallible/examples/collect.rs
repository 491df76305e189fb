//! Collects into a vector and a map without aborting if the heap is exhausted.

use doorbell_fallible::{SortedMap, try_collect};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let squares = try_collect((1..=3).map(|number| number * number))?;
    assert_eq!(squares, [1, 4, 9]);

    let mut names = SortedMap::new();
    names.reserve()?; // Can fail, so that the caller can roll back.
    names.insert(33, "uart"); // Cannot fail.
    println!("{:?} and {:?}", squares, names.get(33));
    Ok(())
}
