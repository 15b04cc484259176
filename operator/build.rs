//! Cargo does not see by itself that a migration was added to the folders that `sqlx::migrate!` reads.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
