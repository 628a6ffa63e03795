//! User SQL on a SQLite connection, called on the caller's own thread: bound, run, read.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, Statement};

use super::tx::{Error, Param, Row};

pub(super) fn execute(connection: &Connection, sql: &str, params: Vec<Param>) -> Result<u64, Error> {
    let mut statement = connection.prepare_cached(sql).map_err(refused)?;
    bind(&mut statement, &params)?;
    let changed = statement.raw_execute().map_err(refused)?;
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}

pub(super) fn fetch(connection: &Connection, sql: &str, params: Vec<Param>) -> Result<Vec<Row>, Error> {
    let mut statement = connection.prepare_cached(sql).map_err(refused)?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    bind(&mut statement, &params)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(refused)? {
        let column = |(place, name): (usize, &String)| {
            row.get_ref(place).map(|value| (name.clone(), read(value))).map_err(refused)
        };
        found.push(Row(names.iter().enumerate().map(column).collect::<Result<_, _>>()?));
    }
    Ok(found)
}

/// `$2` is a name to SQLite, and says nothing of a place: the number in it does.
fn bind(statement: &mut Statement<'_>, params: &[Param]) -> Result<(), Error> {
    for place in 1..=statement.parameter_count() {
        let number = statement.parameter_name(place).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        let param = number.unwrap_or(place).checked_sub(1).and_then(|number| params.get(number));
        let Some(param) = param else {
            let name = statement.parameter_name(place).unwrap_or("?");
            return Err(Error::Malformed(format!("there is no value for {name}, of {} given", params.len())));
        };
        match param {
            Param::Text(text) => statement.raw_bind_parameter(place, text),
            Param::Int(number) => statement.raw_bind_parameter(place, number),
            Param::Real(number) => statement.raw_bind_parameter(place, number),
            Param::Blob(bytes) => statement.raw_bind_parameter(place, bytes),
            Param::Null => statement.raw_bind_parameter(place, rusqlite::types::Null),
        }
        .map_err(refused)?;
    }
    Ok(())
}

fn read(value: ValueRef<'_>) -> Param {
    match value {
        ValueRef::Null => Param::Null,
        ValueRef::Integer(number) => Param::Int(number),
        ValueRef::Real(number) => Param::Real(number),
        ValueRef::Text(text) => Param::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Param::Blob(bytes.to_vec()),
    }
}

pub(super) fn refused(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Error::Constraint(error.to_string()),
        // "SQL error or missing table", a wrong type, or not SQLite's own word at all: wrong, and stays wrong.
        Some(ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::ParameterOutOfRange) | None => {
            Error::Malformed(error.to_string())
        }
        Some(_) => Error::Unavailable(error.to_string()),
    }
}
