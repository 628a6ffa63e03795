//! A Postgres server of the tests' own: made in a folder that goes with it, on a free port, and ended with the value.
//!
//! It is the Debian package's binaries, run as the user `postgres` where the tests are run by root, which Postgres
//! refuses to be.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use amends_engine::Env;
use amends_engine::secret::Vault;
use amends_engine::store::open::{Migrations, OpenError};
use amends_engine::store::postgres::PostgresStore;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running server, and what else runs beside it.
pub struct Server {
    folder: Arc<tempfile::TempDir>,
    data: PathBuf,
    port: u16,
    running: Option<Child>,
    databases: std::sync::atomic::AtomicU32,
}

/// A pgbouncer in transaction mode in front of a server.
pub struct Pooler {
    child: Child,
    port: u16,
    _folder: Arc<tempfile::TempDir>,
}

/// One database on it, with the folder of its key.
#[derive(Debug, Clone)]
pub struct Base {
    pub name: String,
    pub url: String,
    pub key: PathBuf,
}

/// The server that the tests of this program share, while any of them runs.
static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    /// The one that the tests of this program share.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start_new());
        *shared = Arc::downgrade(&server);
        server
    }

    /// A fresh one.
    pub fn start_new() -> Self {
        Self::with_settings(&[])
    }

    /// A fresh one with these lines in its settings.
    pub fn with_settings(settings: &[&str]) -> Self {
        let folder = Arc::new(tempfile::Builder::new().prefix("amends-pg-").tempdir().unwrap());
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        hand_over(folder.path());
        hand_over(&data);
        let mut initdb = tool("initdb");
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
        check(&mut initdb);
        let mut lines = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{}'", folder.path().display()),
            "max_connections = 200".to_owned(),
            "shared_buffers = 64MB".to_owned(),
            "log_min_messages = warning".to_owned(),
            // So that a test can count what went wrong, by SQLSTATE and database.
            "log_line_prefix = '%e %d '".to_owned(),
            "wal_level = replica".to_owned(),
            "max_wal_senders = 8".to_owned(),
        ];
        lines.extend(settings.iter().map(|line| (*line).to_owned()));
        let file = data.join("postgresql.conf");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}\n{}\n", lines.join("\n"))).unwrap();
        let mut server = Self {
            folder,
            data,
            port: free_port(),
            running: None,
            databases: std::sync::atomic::AtomicU32::new(0),
        };
        server.start();
        server
    }

    /// Starts it after a stop.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "the server runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = watched("QUIT", &path_of("postgres"));
        command.arg("-D").arg(&self.data).arg("-p").arg(self.port.to_string());
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running = Some(command.spawn().unwrap());
        let port = self.port.to_string();
        let host = self.folder.path().display().to_string();
        let ready = || {
            let mut ask = tool("pg_isready");
            ask.args(["-q", "-h", &host, "-p", &port]).status().is_ok_and(|status| status.success())
        };
        self.wait_until("start", ready);
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// How many statements have failed in a database with this SQLSTATE.
    pub fn errors(&self, database: &str, state: &str) -> usize {
        let log = std::fs::read_to_string(self.log()).unwrap();
        let begin = format!("{state} {database} ERROR:");
        log.lines().filter(|line| line.starts_with(&begin)).count()
    }

    /// How many connections to a database the server has ended with this SQLSTATE.
    pub fn fatals(&self, database: &str, state: &str) -> usize {
        let log = std::fs::read_to_string(self.log()).unwrap();
        let begin = format!("{state} {database} FATAL:");
        log.lines().filter(|line| line.starts_with(&begin)).count()
    }

    fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = now();
        while !done() {
            if began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                panic!("the server did not {what} within {PATIENCE:?}:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as a power cut does: nothing is written any more.
    pub fn stop_immediately(&mut self) {
        self.signal("QUIT");
        self.ended();
    }

    /// Stops it in order, throwing out who is connected.
    pub fn stop(&mut self) {
        self.signal("INT");
        self.ended();
    }

    fn signal(&self, signal: &str) {
        // The postmaster's own id: the child may be the program that runs it as another user.
        let pid = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        if let Some(pid) = pid.lines().next() {
            let _ = Command::new("kill").arg(format!("-{signal}")).arg(pid).status();
        }
    }

    fn ended(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        drop(child.stdin.take());
        let began = now();
        let mut gone = false;
        self.wait_until("stop", || {
            gone = gone || child.try_wait().unwrap().is_some();
            // On a busy machine it has been seen to wait for its children; they go with it.
            if !gone && began.elapsed() > PATIENCE / 3 {
                self.signal("KILL");
            }
            gone
        });
    }

    /// The port it listens on, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL by `psql`, and answers what it prints, without headings.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut command = tool("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]);
        command.arg("-h").arg(self.folder.path()).arg("-p").arg(self.port.to_string()).arg("-c").arg(sql);
        String::from_utf8(check(&mut command).stdout).unwrap().trim().to_owned()
    }

    /// A fresh database.
    pub fn database(&self) -> Base {
        let number = self.databases.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("amends_{number}");
        self.psql("postgres", &format!("create database {name}"));
        let url = format!("postgres://postgres@127.0.0.1:{}/{name}", self.port);
        Base { key: self.folder.path().join(format!("{name}.key")), name, url }
    }

    /// A pgbouncer before it, in transaction mode.
    pub fn pgbouncer(&self) -> Pooler {
        let port = free_port();
        let folder = self.folder.path().join(format!("pgbouncer-{port}"));
        std::fs::create_dir(&folder).unwrap();
        hand_over(&folder);
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = transaction\nmax_client_conn = 500\n\
             default_pool_size = 12\nignore_startup_parameters = extra_float_digits\nunix_socket_dir =\n\
             logfile = {}\n",
            self.port,
            folder.join("log").display(),
        );
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = watched("TERM", &find("pgbouncer", "pgbouncer"));
        command.arg("-q").arg(&file).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        self.wait_until("get a pooler", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Pooler { child, port, _folder: self.folder.clone() }
    }

    /// Ends every connection to a database but the one that asks; how many there were.
    pub fn terminate_backends(&self, database: &str) -> usize {
        let sql = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = '{database}' and pid <> pg_backend_pid()"
        );
        self.psql("postgres", &sql).parse().unwrap()
    }

    /// Ends at most so many of a role's connections to a database, those that have something to do first; how many.
    pub fn terminate_some(&self, database: &str, role: &str, most: usize) -> usize {
        let sql = format!(
            "select count(pg_terminate_backend(pid)) from (
               select pid from pg_stat_activity
               where datname = '{database}' and usename = '{role}' and pid <> pg_backend_pid()
               order by state = 'idle', state_change desc limit {most}) ended"
        );
        self.psql("postgres", &sql).parse().unwrap()
    }

    /// A standby that this server waits for with every commit.
    pub fn standby(&self) -> Server {
        let data = self.folder.path().join(format!("standby-{}", free_port()));
        std::fs::create_dir(&data).unwrap();
        hand_over(&data);
        let mut copy = tool("pg_basebackup");
        copy.arg("-D").arg(&data).args(["-R", "-c", "fast", "-X", "stream", "-U", "postgres"]);
        let source = format!("host=127.0.0.1 port={} application_name=standby", self.port);
        copy.arg("-d").arg(source);
        check(&mut copy);
        let mut standby = Server {
            folder: self.folder.clone(),
            data,
            port: free_port(),
            running: None,
            databases: std::sync::atomic::AtomicU32::new(1000),
        };
        standby.start();
        self.psql("postgres", "alter system set synchronous_standby_names = 'standby'");
        self.psql("postgres", "select pg_reload_conf()");
        self.wait_until("get a synchronous standby", || {
            self.psql("postgres", "select count(*) from pg_stat_replication where sync_state = 'sync'") == "1"
        });
        standby
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        self.psql("postgres", "select pg_promote(true, 20)");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            drop(child.stdin.take());
            let began = now();
            while matches!(child.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Pooler {
    /// The address of a database by way of the pooler.
    pub fn url(&self, base: &Base) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}?pooler=transaction", self.port, base.name)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Base {
    /// Opens a store on it.
    pub async fn open(&self, own: &[Migrations], env: &Env) -> (PostgresStore, Vault) {
        self.try_open(&self.url, own, env).await.unwrap()
    }

    /// Opens a store on it by this address.
    pub async fn try_open(
        &self,
        url: &str,
        own: &[Migrations],
        env: &Env,
    ) -> Result<(PostgresStore, Vault), OpenError> {
        PostgresStore::open(url, &self.key, "test", own, env).await
    }
}

#[allow(clippy::disallowed_methods, reason = "another process is waited for")]
fn now() -> Instant {
    Instant::now()
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn is_root() -> bool {
    String::from_utf8_lossy(&Command::new("id").arg("-u").output().unwrap().stdout).trim() == "0"
}

/// Gives a folder to the user that the server runs as.
fn hand_over(folder: &Path) {
    if is_root() {
        check(Command::new("chown").arg("postgres").arg(folder));
    }
    check(Command::new("chmod").arg("0711").arg(folder));
    if folder.ends_with("data") || folder.to_string_lossy().contains("standby-") {
        check(Command::new("chmod").arg("0700").arg(folder));
    }
}

/// A program of the server's package.
fn tool(name: &str) -> Command {
    as_postgres(&path_of(name))
}

fn path_of(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|folders| folders.flatten().map(|folder| folder.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|path| path.exists());
    versions.sort();
    versions.pop().unwrap_or_else(|| find(name, "postgresql"))
}

fn find(name: &str, package: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let places =
        path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]).map(|place| Path::new(place).join(name));
    places
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("missing: {name}. On Debian: sudo apt-get install {package}"))
}

/// A program that ends, by this signal, when its standard input is closed: so also when the test is killed.
fn watched(signal: &str, program: &Path) -> Command {
    let mut command = as_postgres(Path::new("/bin/sh"));
    // What a shell runs in the background ignores INT and QUIT unless it is told not to.
    let watch = format!(
        "env --default-signal=INT,QUIT \"$@\" </dev/null & child=$!; read -r _; kill -{signal} $child 2>/dev/null; \
         wait $child"
    );
    command.arg("-c").arg(watch).arg("watch").arg(program);
    command
}

fn as_postgres(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").env_remove("PGDATABASE").env_remove("PGHOST").env_remove("PGPORT");
    command
}

fn check(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
