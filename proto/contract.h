/* The text of org.memctl.varlink, as it stood when this was built. */
#pragma once

extern const char contract_text[];
