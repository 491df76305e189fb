//! Links the program at the address at which QEMU loads flat files.

fn main() {
    println!("cargo::rustc-link-arg-bins=-T{}/newcomer.ld", env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed=newcomer.ld");
}
