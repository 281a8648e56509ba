package store

// What SQLite and the C library do by default costs most of the processor time of the short statements
// that central has:
//
//   - A statement on a table with partial indexes is planned again, from its text, each time its parameters are
//     bound, in case other values allow for another index. With QPSG (query planner stability guarantee) its
//     plan goes by its text alone, and it is planned once for each connection.
//   - A list or a sort takes some 90 KiB, and gives them back at the end of the statement. glibc returns them to the
//     kernel each time, which stops all threads of the process for a moment and faults the pages in again. It
//     keeps up to 8 MiB in each of two arenas instead.
//   - What a savepoint would bring back is kept in a file once it is 64 KiB, a call for each page; most jobs are
//     larger. It stays in memory instead, however much it is: a bound of more than 128 KiB is none, since SQLite moves
//     what it has to the file in one write, and writes no more than that at once (SQLITE_FULL).
//   - Each allocation takes a lock to be counted. Nobody asks for the counts.

/*
#include <stddef.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

// SQLite is in another package: its symbols are found when all is linked.
extern int sqlite3_config(int, ...) __attribute__((weak));
extern int sqlite3_db_config(void *, int, ...) __attribute__((weak));
extern int sqlite3_auto_extension(void (*)(void)) __attribute__((weak));

enum { config_memstatus = 9, config_stmtjrnl_spill = 26, dbconfig_enable_qpsg = 1007 }; // of sqlite3.h

static int stable_plans(void *db, char **err, const void *api) {
	return sqlite3_db_config(db, dbconfig_enable_qpsg, 1, NULL);
}

static void tune(void) {
#ifdef __GLIBC__
	mallopt(M_TRIM_THRESHOLD, 8 << 20);
	mallopt(M_TOP_PAD, 1 << 20);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
	mallopt(M_ARENA_MAX, 2);
#endif
	if (sqlite3_config && sqlite3_db_config && sqlite3_auto_extension) {
		sqlite3_config(config_memstatus, 0);
		sqlite3_config(config_stmtjrnl_spill, -1);
		sqlite3_auto_extension((void (*)(void))stable_plans);
	}
}
*/
import "C"

func init() { C.tune() }
