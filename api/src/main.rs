//! The `amends` program.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for concurrency in [1, 64] {
        let o = amends_api::bench::Options {
            sagas: if concurrency == 1 { 50 } else { 2000 },
            steps: 5,
            concurrency,
            folder: std::env::temp_dir(),
        };
        for m in amends_api::bench::run(&o).await? {
            println!("{m:?}");
        }
    }
    Ok(())
}
