//! Links the image with image-rt's linker script.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Timage-rt.ld");
}
