//! Leaks beside a function that allocates more and frees it. Built with frame pointers by the test.
use std::hint::black_box;

#[inline(never)]
fn leak_a_block(kept: &mut Vec<Vec<u8>>) {
    kept.push(vec![1; 64 << 10]);
}

// Larger than any allocator keeps for itself.
#[inline(never)]
fn fill_and_free() {
    let mut block: Vec<u8> = Vec::with_capacity(64 << 20);
    block.resize(1 << 20, 1);
    black_box(&block);
}

fn main() {
    let mut kept = Vec::new();
    println!("ready");
    loop {
        leak_a_block(&mut kept);
        fill_and_free();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
