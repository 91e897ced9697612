/* History: questions to the metrics database. */
#pragma once

/* memctld ends; servers and the history's thread have, and the loop runs no more: what was answered and not told is ended here. */
void ops_history_end(void);
