# cmake -DSOURCE=DIR -DOUTPUT=FILE -P git_revision.cmake: writes the commit of DIR into the header FILE, when it differs from what the
# file says. Run by every build: a configured constant would name the commit of the last configure.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12
  OUTPUT_VARIABLE revision OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
set(text "#define QB_GIT \"${revision}\"\n")
set(old "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
