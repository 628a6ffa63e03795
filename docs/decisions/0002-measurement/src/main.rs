//! Writes the same rows through sqlx and through rusqlite: groups of turns, each a fence, a saga row and two
//! journal rows, in one `begin immediate` … `commit` at `synchronous = full`.

use std::time::Instant;

const SCHEMA: &str = "
pragma journal_mode = wal; pragma synchronous = full;
create table saga (id text primary key, state text not null, step text, due_at integer, epoch integer not null,
  seq integer not null, updated_at integer not null) strict;
create table journal (saga text not null, seq integer not null, at integer not null, epoch integer not null,
  version integer not null, kind text not null, event text not null, primary key (saga, seq)) strict, without rowid;
";
const EVENTS: [(&str, &str); 2] = [
    ("attempt_started", r#"{"kind":"attempt_started","step":"reserve","attempt":1,"generation":1,"not_after":1795520000000000,"asked":{"activity":"bench.note","input":{"number":17,"text":"a line of text"},"local":"stays","effect":"repeatable","give_up_at":1795523600000000}}"#),
    ("step_completed", r#"{"kind":"step_completed","step":"reserve","output":{"number":17}}"#),
];
const SAGAS: usize = 2000;
/// Each saga takes so many turns.
const TURNS: usize = 10;

fn id(saga: usize) -> String {
    format!("sg_{saga:026}")
}


fn groups(group: usize) -> Vec<Vec<(usize, i64)>> {
    let all: Vec<(usize, i64)> =
        (0..TURNS).flat_map(|turn| (0..SAGAS).map(move |saga| (saga, turn as i64))).collect();
    all.chunks(group).map(<[_]>::to_vec).collect()
}

#[cfg(feature = "with-rusqlite")]
fn main() {
    for group in [1, 16, 128] {
        let file = std::path::Path::new("/tmp/writer-rusqlite.db");
        for end in ["", "-wal", "-shm"] { let _ = std::fs::remove_file(format!("{}{end}", file.display())); }
        let mut db = rusqlite::Connection::open(file).expect("open");
        db.execute_batch(SCHEMA).expect("schema");
        for saga in 0..SAGAS {
            db.execute("insert into saga values (?1, 'queued', null, 0, 1, 0, 0)", [id(saga)]).expect("saga");
        }
        let groups = if group == 1 { groups(1).into_iter().take(4000).collect() } else { groups(group) };
        let turns: usize = groups.iter().map(Vec::len).sum();
        let started = Instant::now();
        for group in &groups {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("begin");
            for (saga, turn) in group {
                let changed = tx.prepare_cached("update saga set state = ?1, step = ?2, due_at = ?3, seq = ?4, updated_at = ?5 where id = ?6 and epoch = ?7 and seq = ?8").expect("prepare")
                    .execute(rusqlite::params!["running", "reserve", 1, turn * 2 + 2, 1, id(*saga), 1, turn * 2]).expect("fence");
                assert_eq!(changed, 1);
                for (number, (kind, event)) in EVENTS.iter().enumerate() {
                    tx.prepare_cached("insert into journal values (?1, ?2, ?3, ?4, ?5, ?6, ?7)").expect("prepare")
                        .execute(rusqlite::params![id(*saga), turn * 2 + 1 + number as i64, 1, 1, 1, kind, event]).expect("journal");
                }
            }
            tx.commit().expect("commit");
        }
        println!("{:<28} group {group:>4}  {:>9.0} turns/s", "rusqlite, row by row", turns as f64 / started.elapsed().as_secs_f64());
    }
}

#[cfg(all(feature = "with-sqlx", not(feature = "with-rusqlite")))]
#[tokio::main]
async fn main() {
    use sqlx::{Connection, Executor, SqliteConnection};
    for fat in [false, true] {
        for group in [1, 16, 128] {
            let file = "/tmp/writer-sqlx.db";
            for end in ["", "-wal", "-shm"] { let _ = std::fs::remove_file(format!("{file}{end}")); }
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true)
                .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal).synchronous(sqlx::sqlite::SqliteSynchronous::Full);
            let mut db = SqliteConnection::connect_with(&options).await.expect("open");
            db.execute(SCHEMA).await.expect("schema");
            let mut tx = db.begin().await.expect("begin");
            for saga in 0..SAGAS {
                sqlx::query("insert into saga values ($1, 'queued', null, 0, 1, 0, 0)").bind(id(saga)).execute(&mut *tx).await.expect("saga");
            }
            tx.commit().await.expect("commit");
            let groups = if group == 1 { groups(1).into_iter().take(4000).collect() } else { groups(group) };
            let turns: usize = groups.iter().map(Vec::len).sum();
            let started = Instant::now();
            for group in &groups {
                let mut tx = db.begin_with("begin immediate").await.expect("begin");
                if fat {
                    let sagas: Vec<_> = group.iter().map(|(saga, turn)| serde_json::json!([id(*saga), "running", "reserve", 1, 1, turn * 2, turn * 2 + 2, 1])).collect();
                    let changed = sqlx::query("update saga set state = j.value ->> 1, step = j.value ->> 2, due_at = j.value ->> 3, seq = j.value ->> 6, updated_at = j.value ->> 7 from json_each($1) j where saga.id = j.value ->> 0 and saga.epoch = j.value ->> 4 and saga.seq = j.value ->> 5")
                        .bind(serde_json::to_string(&sagas).expect("json")).execute(&mut *tx).await.expect("fence");
                    assert_eq!(changed.rows_affected() as usize, group.len());
                    let lines: Vec<_> = group.iter().flat_map(|(saga, turn)| EVENTS.iter().enumerate().map(move |(number, (kind, event))| serde_json::json!([id(*saga), turn * 2 + 1 + number as i64, 1, 1, 1, kind, event]))).collect();
                    sqlx::query("insert into journal select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 from json_each($1)")
                        .bind(serde_json::to_string(&lines).expect("json")).execute(&mut *tx).await.expect("journal");
                } else {
                    for (saga, turn) in group {
                        let changed = sqlx::query("update saga set state = $1, step = $2, due_at = $3, seq = $4, updated_at = $5 where id = $6 and epoch = $7 and seq = $8")
                            .bind("running").bind("reserve").bind(1).bind(turn * 2 + 2).bind(1).bind(id(*saga)).bind(1).bind(turn * 2).execute(&mut *tx).await.expect("fence");
                        assert_eq!(changed.rows_affected(), 1);
                        for (number, (kind, event)) in EVENTS.iter().enumerate() {
                            sqlx::query("insert into journal values ($1, $2, $3, $4, $5, $6, $7)")
                                .bind(id(*saga)).bind(turn * 2 + 1 + number as i64).bind(1).bind(1).bind(1).bind(*kind).bind(*event).execute(&mut *tx).await.expect("journal");
                        }
                    }
                }
                tx.commit().await.expect("commit");
            }
            let name = if fat { "sqlx, one statement a table" } else { "sqlx, row by row" };
            println!("{name:<28} group {group:>4}  {:>9.0} turns/s", turns as f64 / started.elapsed().as_secs_f64());
        }
    }
}

#[cfg(not(any(feature = "with-sqlx", feature = "with-rusqlite")))]
fn main() {
    println!("cargo run --release --features with-sqlx, then --features with-rusqlite");
}
