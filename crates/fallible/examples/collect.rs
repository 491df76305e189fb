//! A vector and a map on a heap that may have no room.

use doorbell_fallible::{SortedMap, try_collect};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let squares = try_collect((1..=3).map(|number| number * number))?;
    assert_eq!(squares, [1, 4, 9]);

    let mut names = SortedMap::new();
    names.reserve()?; // fails here, where it can be undone
    names.insert(33, "uart"); // and not here
    println!("{:?} and {:?}", squares, names.get(33));
    Ok(())
}
